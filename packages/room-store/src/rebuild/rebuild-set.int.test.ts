import { describeWith } from '@realtime-service/dev-stack/vitest';
import { expect, test } from 'vitest';
import { startDatabase } from '../../test/given.ts';
import { dropRebuild, prepareRebuild, RebuildOutdatedError } from './rebuild-set.ts';

describeWith(['postgres'], 'the second set of tables', () => {
  test.each([
    ['a column', 'alter table rooms add column topic_of_the_day text'],
    ['an index', 'create index members_of_user on members (user_id)'],
    ['a constraint', `alter table members add constraint no_king check (role <> 'king') not valid`],
    ['a default', `alter table members alter column role set default 'listener'`],
    ['a privilege', 'grant select on members to pg_monitor'],
  ])('is outdated once the tables have %s that they had not when it was made', async (_, alteration) => {
    const { pool } = await startDatabase();
    expect([await prepareRebuild(pool), await prepareRebuild(pool)]).toEqual(['new', 'resumed']);
    await pool.query(alteration);
    await expect(prepareRebuild(pool)).rejects.toThrow(RebuildOutdatedError);
    await dropRebuild(pool);
    expect([await prepareRebuild(pool), await prepareRebuild(pool)]).toEqual(['new', 'resumed']);
    await pool.end();
  });
});
