import { readFileSync } from 'node:fs';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { authorise } from '@realtime-service/room-model';
import {
  createPool,
  createSeatTaker,
  findLiveLogins,
  keepRecords,
  migrate,
  type Pool,
  prepareRebuild,
  readPositions,
  readPresentPeople,
  readProvenance,
  releaseRecords,
} from '@realtime-service/room-store';
import { afterAll, beforeAll, expect, test } from 'vitest';

/** The statements of deploy/README.md, as they stand there. */
const statements = [
  ...readFileSync(new URL('../../deploy/README.md', import.meta.url), 'utf8').matchAll(
    /^ {4}((?:create|grant|alter) .+;)$/gm,
  ),
].map(([, statement = '']) => statement);
const ofSuperuser = statements.filter((statement) => statement.startsWith('create'));
const ofOwner = statements.filter((statement) => !statement.startsWith('create'));

describeWith(['postgres'], 'the roles that deploy/README.md makes', ({ postgres }) => {
  const open = (url: string) => createPool({ url, maxConnections: 2, applicationName: 'test', onError: () => {} });
  const urlOf = (role: string) => {
    const url = new URL(postgres.url);
    return Object.assign(url, { username: role, password: '…', pathname: '/realtime' }).href;
  };
  let superuser: Pool;
  let owner: Pool;
  let api: Pool;
  beforeAll(async () => {
    superuser = open(postgres.url);
    for (const statement of ofSuperuser) await superuser.query(statement);
    await migrate(urlOf('realtime'));
    owner = open(urlOf('realtime'));
    for (const statement of ofOwner) await owner.query(statement);
    api = open(urlOf('realtime_api'));
  });
  afterAll(async () => {
    await owner?.end();
    await api?.end();
    // Whatever of them there is: they have no names of their own, and the next run makes them again.
    await superuser.query('drop database if exists realtime with (force)');
    await superuser.query('drop role if exists realtime, realtime_api');
    await superuser.end();
  });

  test('the api may give seats, keep logouts, and read all that it looks at', async () => {
    await owner.query(
      `insert into rooms (room_id, state, access, max_participants, event_id, topic, "partition", "offset", fact_at)
        values ('r', 'open', 'authenticated', 1, 'e', 't', 0, 0, now())`,
    );
    const query = { roomId: 'r', userId: 'u', loginId: null };
    const take = createSeatTaker(api, { deadlineMs: 5_000, leaseSeconds: 140 });
    const { verdict } = await take({ ...query, identity: 'u', deviceId: null }, ({ facts, nowMs }) =>
      authorise(facts, { purpose: 'enter', takeOver: false, loginEndsAtMs: null }, nowMs),
    );
    expect(verdict).toMatchObject({ kind: 'allow' });

    await keepRecords(api, [{ topic: 't', key: 'k', value: Buffer.from('v'), headers: {} }]);
    expect(await releaseRecords(api, 10, async () => {})).toBe(1);

    expect(await findLiveLogins(api, { userId: 'u' }, null)).toEqual([]);
    expect(await readPresentPeople(api, 'r', { identity: null, limit: 10 })).toEqual([]);
    expect(await readPositions(api, 'active')).toEqual([]);
    expect((await readProvenance(api, query)).provenance.room?.origin).toMatchObject({ eventId: 'e' });
  });

  test('the api may not write what decides', async () => {
    for (const table of ['rooms', 'members', 'bans', 'users', 'sessions', 'marks', 'log_positions'])
      await expect(api.query(`delete from ${table}`)).rejects.toThrow('permission denied');
  });

  test('the api may read what a later release adds', async () => {
    await owner.query('create table added_later ()');
    expect((await api.query('select * from added_later')).rows).toEqual([]);
  });

  test('the owner may rebuild, after which the api may do what it could', async () => {
    expect(await prepareRebuild(owner)).toBe('new');
    const { rows } = await owner.query(
      `select has_table_privilege('realtime_api', 'realtime_rebuild.members', 'select')`,
    );
    expect(rows).toEqual([{ has_table_privilege: true }]);
  });
});
