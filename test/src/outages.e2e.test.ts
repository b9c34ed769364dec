import { until } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startKeycloakIdentity } from './identity.ts';
import { connect } from './participant.ts';
import { type System, startSystem } from './system.ts';

describeWith(['postgres', 'kafka', 'livekit', 'keycloak'], 'when a part is down', () => {
  let identity: Awaited<ReturnType<typeof startKeycloakIdentity>>;
  let system: System;

  beforeAll(async () => {
    identity = await startKeycloakIdentity();
    system = await startSystem({ identity, env: { SWEEP_INTERVAL_SECONDS: '2' } });
  }, 240_000);
  afterAll(async () => {
    await system?.stop();
    await identity?.stop();
  }, 60_000);

  const codeOf = async (response: Response): Promise<string> =>
    ((await response.json()) as { code?: string }).code ?? '';
  const statusOf = async (url: string): Promise<number> => (await fetch(url)).status;

  /** The whole way works: a fact through Kafka admits somebody. */
  const worksAgain = async (room: string, withinMs: number): Promise<void> => {
    const data = { userId: identity.subjectOf('bob'), role: 'speaker' as const };
    await until(
      'facts are taken again',
      async () => {
        await system.publish({ type: 'member.added', subject: room, data });
        return true;
      },
      withinMs,
    );
    await until('bob is admitted', async () => (await system.join('bob', room)).status === 200, withinMs);
  };

  test('Kafka: joins go on, facts and webhooks are asked for again, and nothing is lost', async () => {
    await system.createRoom('without-kafka', { ann: 'host' });
    const { server_url, participant_token } = await system.enter('ann', 'without-kafka');
    await system.kafka?.kill();
    expect((await system.join('ann', 'without-kafka')).status).toBe(200);
    const refused = await system.publishOverHttp({ type: 'room.locked', subject: 'without-kafka' });
    expect([refused.status, refused.headers.has('retry-after')]).toEqual([503, true]);
    const ann = await connect(server_url, participant_token);
    await until('LiveKit is told to try again', async () =>
      /realtime_webhooks_total\{outcome="log_unavailable"\} [1-9]/.test(
        await (await fetch(`${system.worker.opsUrl}/metrics`)).text(),
      ),
    );
    await system.kafka?.start();
    await worksAgain('without-kafka', 30_000);
    await until(
      'ann is known to be inside',
      async () => {
        const { rows } = await system.pool.query(`select 1 from sessions where room_id = 'without-kafka' and is_live`);
        return rows.length === 1;
      },
      30_000,
    );
    await ann.leave();
  }, 120_000);

  test('C28: PostgreSQL: no decision, so 503, and both services live on and recover', async () => {
    await system.createRoom('without-database', { ann: 'host' });
    await system.postgres.kill();
    const startedAtMs = performance.now();
    const answer = await system.join('ann', 'without-database');
    expect([answer.status, await codeOf(answer), answer.headers.has('retry-after')]).toEqual([
      503,
      'store_unavailable',
      true,
    ]);
    expect(performance.now() - startedAtMs).toBeLessThan(3_000);
    for (const { opsUrl } of [system.api, system.worker])
      expect([await statusOf(`${opsUrl}/livez`), await statusOf(`${opsUrl}/readyz`)]).toEqual([200, 503]);
    await system.publish({ type: 'room.locked', subject: 'without-database' });
    await system.postgres.start();
    await until('ann joins again', async () => (await system.join('ann', 'without-database')).status === 200, 10_000);
    await until(
      'what was said meanwhile is known',
      async () => {
        const { rows } = await system.pool.query(`select is_locked from rooms where room_id = 'without-database'`);
        return rows[0]?.is_locked === true;
      },
      20_000,
    );
    await until(
      'both are ready',
      async () =>
        (await statusOf(`${system.api.opsUrl}/readyz`)) === 200 &&
        (await statusOf(`${system.worker.opsUrl}/readyz`)) === 200,
      20_000,
    );
  }, 120_000);

  test('LiveKit: who joins a live room gets a token, who needs the room made does not', async () => {
    await system.createRoom('live', { ann: 'host' });
    await system.createRoom('not-live', { ann: 'host' });
    const { server_url, participant_token } = await system.enter('ann', 'live');
    await system.rooms.deleteRoom('not-live');
    const ann = await connect(server_url, participant_token);
    // Of both: a start that is told of only now would have the other one count as live.
    await until('it is known that one room is live, and that the other one was', async () => {
      const { rows } = await system.pool.query(
        `select room_id, is_live from room_lives where room_id in ('live', 'not-live') order by room_id`,
      );
      return (
        JSON.stringify(rows) ===
        JSON.stringify([
          { room_id: 'live', is_live: true },
          { room_id: 'not-live', is_live: false },
        ])
      );
    });
    await system.livekit.kill();
    expect((await system.join('ann', 'live')).status).toBe(200);
    // An answer of LiveKit's counts for a second.
    const refused = await until('who needs the room made is refused', async () => {
      const answer = await system.join('ann', 'not-live');
      return answer.status !== 200 && answer;
    });
    expect([refused.status, await codeOf(refused)]).toEqual([503, 'livekit_unavailable']);
    await system.livekit.start();
    await until('the room is made again', async () => (await system.join('ann', 'not-live')).status === 200, 10_000);
    await until(
      'the lost session is known to be over',
      async () => {
        const { rows } = await system.pool.query('select 1 from sessions where is_live');
        return rows.length === 0;
      },
      30_000,
    );
    await ann.leave();
  }, 120_000);

  test('Keycloak: whoever holds a token joins, as long as its key is known', async () => {
    await system.createRoom('without-keycloak', { ann: 'host' });
    const token = await identity.token('ann');
    await identity.keycloak.kill();
    const response = await fetch(`${system.api.url}/api/realtime/rooms/without-keycloak/join`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
    });
    expect(response.status).toBe(200);
    await identity.keycloak.start();
    const newToken = await until('Keycloak gives tokens again', () => identity.newToken('ann'), 30_000);
    const headers = { authorization: `Bearer ${newToken}` };
    await until(
      'new tokens count',
      async () => (await system.join('ann', 'without-keycloak', undefined, headers)).status === 200,
    );
  }, 120_000);
});
