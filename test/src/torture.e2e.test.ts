import { randomInt } from 'node:crypto';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Identity, startDevIdentity } from './identity.ts';
import { type System, startSystem } from './system.ts';
import { torture } from './torture.ts';

const seed = Number(process.env['TORTURE_SEED'] ?? randomInt(1_000_000));

describeWith(
  ['postgres', 'kafka', 'livekit'],
  `workers, broker and database that are killed (TORTURE_SEED=${seed})`,
  () => {
    let identity: Identity;
    let system: System;

    beforeAll(async () => {
      identity = await startDevIdentity();
      system = await startSystem({ identity, env: { SWEEP_INTERVAL_SECONDS: '3600' } });
    });
    afterAll(async () => {
      await system?.stop();
      await identity?.stop();
    }, 60_000);

    test('6 times in 2,000 facts: none is lost, none doubled, and the tables are the pure fold', async () => {
      const result = await torture(system, {
        seed,
        events: 2_000,
        kills: 6,
        say: (line) => void process.stderr.write(`${line}\n`),
      });
      expect(result).toMatchObject({ lost: 0, phantom: 0, double: 0, divergence: 0 });
    }, 300_000);
  },
);
