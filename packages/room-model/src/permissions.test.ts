import type { PermissionOverrides, Privilege, Role } from '@realtime-service/contracts';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { anyOverrides, anyPrivilege, anyRole } from '../test/given.ts';
import {
  isSamePermission,
  type Permissions,
  permissionsOf,
  roles,
  toParticipantPermission,
  toVideoGrant,
} from './permissions.ts';

const all = ['camera', 'microphone', 'screen_share', 'screen_share_audio'] as const;
const everyRole: readonly Role[] = ['host', 'moderator', 'speaker', 'listener', 'observer'];

describe('what a role may', () => {
  test.each<{ role: Role } & Permissions>([
    {
      role: 'host',
      publishSources: [...all],
      subscribe: true,
      publishData: true,
      hidden: false,
      moderate: true,
      dispatchAgents: true,
    },
    {
      role: 'moderator',
      publishSources: [...all],
      subscribe: true,
      publishData: true,
      hidden: false,
      moderate: true,
      dispatchAgents: false,
    },
    {
      role: 'speaker',
      publishSources: [...all],
      subscribe: true,
      publishData: true,
      hidden: false,
      moderate: false,
      dispatchAgents: false,
    },
    {
      role: 'listener',
      publishSources: [],
      subscribe: true,
      publishData: false,
      hidden: false,
      moderate: false,
      dispatchAgents: false,
    },
    {
      role: 'observer',
      publishSources: [],
      subscribe: true,
      publishData: false,
      hidden: true,
      moderate: false,
      dispatchAgents: false,
    },
  ])('$role', ({ role, ...expected }) => {
    expect(permissionsOf(role, null, [])).toEqual(expected);
  });

  test('ranks are distinct, in the order of the roles', () => {
    expect(everyRole.map((role) => roles[role].rank)).toEqual([4, 3, 2, 1, 0]);
  });
});

describe('overrides replace the role field by field, bans take away after them', () => {
  test.each<{ role: Role; overrides?: PermissionOverrides; bans?: Privilege[]; then: Partial<Permissions> }>([
    {
      role: 'listener',
      overrides: { publishSources: ['microphone'] },
      then: { publishSources: ['microphone'], publishData: false },
    },
    { role: 'speaker', overrides: { publishSources: [] }, then: { publishSources: [], publishData: true } },
    {
      role: 'speaker',
      overrides: { publishSources: ['microphone', 'camera', 'microphone'] },
      then: { publishSources: ['camera', 'microphone'] },
    },
    {
      role: 'speaker',
      overrides: { subscribe: false, publishData: false, hidden: true },
      then: { subscribe: false, publishData: false, hidden: true },
    },
    // LiveKit delivers what hidden people send as if nobody had: as if it were ours.
    { role: 'host', overrides: { hidden: true }, then: { hidden: true, publishData: false } },
    { role: 'observer', overrides: { publishData: true }, then: { hidden: true, publishData: false } },
    { role: 'observer', overrides: { publishData: true, hidden: false }, then: { publishData: true } },
    { role: 'listener', overrides: { dispatchAgents: true }, then: { dispatchAgents: true, moderate: false } },
    { role: 'observer', overrides: { hidden: false }, then: { hidden: false } },
    { role: 'speaker', bans: ['publish_audio'], then: { publishSources: ['camera', 'screen_share'] } },
    { role: 'speaker', bans: ['publish_video'], then: { publishSources: ['microphone', 'screen_share_audio'] } },
    { role: 'speaker', bans: ['screen_share'], then: { publishSources: ['camera', 'microphone'] } },
    {
      role: 'host',
      bans: ['publish_audio', 'publish_video'],
      then: { publishSources: [], moderate: true, publishData: true },
    },
    { role: 'host', bans: ['data'], then: { publishData: false, publishSources: [...all] } },
    {
      role: 'listener',
      overrides: { publishSources: ['microphone'], publishData: true },
      bans: ['publish_audio', 'data'],
      then: { publishSources: [], publishData: false },
    },
  ])('$role with $overrides and bans $bans', ({ role, overrides, bans, then }) => {
    expect(permissionsOf(role, overrides ?? null, bans ?? [])).toMatchObject(then);
  });

  test('without overrides nothing goes beyond the role, and moderation never does', () => {
    fc.assert(
      fc.property(anyRole, anyOverrides, fc.array(anyPrivilege), (role, overrides, bans) => {
        const row = roles[role].permissions;
        const plain = permissionsOf(role, null, bans);
        expect(row.publishSources).toEqual(expect.arrayContaining(plain.publishSources));
        for (const right of ['subscribe', 'publishData', 'hidden', 'moderate', 'dispatchAgents'] as const)
          expect(plain[right] && !row[right]).toBe(false);
        expect(permissionsOf(role, overrides, bans).moderate).toBe(row.moderate);
      }),
    );
  });

  test('a ban only ever takes away, whatever the overrides give', () => {
    fc.assert(
      fc.property(anyRole, anyOverrides, fc.array(anyPrivilege), anyPrivilege, (role, overrides, bans, more) => {
        const before = permissionsOf(role, overrides, bans);
        const after = permissionsOf(role, overrides, [...bans, more]);
        expect(before.publishSources).toEqual(expect.arrayContaining(after.publishSources));
        expect({ ...after, publishSources: [], publishData: true }).toEqual({
          ...before,
          publishSources: [],
          publishData: true,
        });
        expect(after.publishData && !before.publishData).toBe(false);
      }),
    );
  });
});

/** Every field of `VideoGrant` in livekit-server-sdk 2.19.2, but `destinationRoom`, which has no harmless value. */
const everyGrant = [
  'room',
  'roomJoin',
  'roomCreate',
  'roomList',
  'roomRecord',
  'roomAdmin',
  'ingressAdmin',
  'canPublish',
  'canSubscribe',
  'canPublishData',
  'canPublishSources',
  'canUpdateOwnMetadata',
  'canSubscribeMetrics',
  'canManageAgentSession',
  'hidden',
  'recorder',
  'agent',
].sort();

/** Every field of `livekit.ParticipantPermission`. */
const everyPermission = [
  'canSubscribe',
  'canPublish',
  'canPublishData',
  'canPublishSources',
  'hidden',
  'recorder',
  'canUpdateMetadata',
  'agent',
  'canSubscribeMetrics',
  'canManageAgentSession',
].sort();

describe('LiveKit is told every right', () => {
  test.each(everyRole)('%s: no grant is left to its default', (role) => {
    const permissions = permissionsOf(role, null, []);
    const grant = toVideoGrant('room-42', permissions);
    const update = toParticipantPermission(permissions);
    expect(Object.keys(grant).sort()).toEqual(everyGrant);
    expect(Object.keys(update).sort()).toEqual(everyPermission);
    expect([...Object.values(grant), ...Object.values(update)]).not.toContain(undefined);
  });

  test.each(everyRole)('%s: nobody creates, lists, records or administers, nor changes own attributes', (role) => {
    const permissions = permissionsOf(
      role,
      { publishSources: [...all], subscribe: true, publishData: true, hidden: true, dispatchAgents: true },
      [],
    );
    expect(toVideoGrant('room-42', permissions)).toMatchObject({
      room: 'room-42',
      roomJoin: true,
      roomCreate: false,
      roomList: false,
      roomRecord: false,
      roomAdmin: false,
      ingressAdmin: false,
      canUpdateOwnMetadata: false,
      canSubscribeMetrics: false,
      canManageAgentSession: false,
      recorder: false,
      agent: false,
    });
    expect(toParticipantPermission(permissions)).toMatchObject({
      canUpdateMetadata: false,
      canSubscribeMetrics: false,
      canManageAgentSession: false,
      recorder: false,
      agent: false,
    });
  });

  test('no sources compile to canPublish: false, since an empty list would mean all of them', () => {
    for (const permissions of [
      permissionsOf('listener', null, []),
      permissionsOf('speaker', null, ['publish_audio', 'publish_video']),
    ]) {
      expect(toVideoGrant('room-42', permissions)).toMatchObject({ canPublish: false, canPublishSources: [] });
      expect(toParticipantPermission(permissions)).toMatchObject({ canPublish: false, canPublishSources: [] });
    }
  });

  test('token and update say the same', () => {
    fc.assert(
      fc.property(anyRole, anyOverrides, fc.array(anyPrivilege), (role, overrides, bans) => {
        const permissions = permissionsOf(role, overrides, bans);
        const {
          canUpdateOwnMetadata,
          room,
          roomJoin,
          roomCreate,
          roomList,
          roomRecord,
          roomAdmin,
          ingressAdmin,
          ...grant
        } = toVideoGrant('r', permissions);
        expect(toParticipantPermission(permissions)).toEqual({ ...grant, canUpdateMetadata: canUpdateOwnMetadata });
        expect(grant.canPublish).toBe(grant.canPublishSources.length > 0);
      }),
    );
  });
});

describe('isSamePermission', () => {
  const wanted = toParticipantPermission(permissionsOf('speaker', { publishSources: ['camera', 'microphone'] }, []));

  test('the order of sources does not count', () => {
    expect(isSamePermission(wanted, { ...wanted, canPublishSources: ['microphone', 'camera'] })).toBe(true);
  });

  test.each([
    ['one source more', ['camera', 'microphone', 'screen_share'] as const],
    ['one source less', ['camera'] as const],
    ['another source', ['camera', 'screen_share'] as const],
    ['one source twice', ['camera', 'camera'] as const],
    ['no sources, which LiveKit reads as all', [] as const],
  ])('%s is a difference', (_, sources) => {
    expect(isSamePermission(wanted, { ...wanted, canPublishSources: [...sources] })).toBe(false);
  });

  test('every flag counts', () => {
    const flags = everyPermission.filter((name) => name !== 'canPublishSources') as Exclude<
      keyof typeof wanted,
      'canPublishSources'
    >[];
    for (const flag of flags) {
      expect(isSamePermission(wanted, { ...wanted, [flag]: !wanted[flag] })).toBe(false);
    }
  });
});
