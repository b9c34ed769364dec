import type { JoinPermissions, MediaSource, PermissionOverrides, Privilege, Role } from '@realtime-service/contracts';

/** A complete set of rights: every one said. LiveKit takes an unset one for granted. */
export interface Permissions extends JoinPermissions {
  /** In a fixed order and without repeats, so that equal rights are equal values. */
  readonly publishSources: MediaSource[];
  readonly dispatchAgents: boolean;
}

const sourceOrder: readonly MediaSource[] = ['camera', 'microphone', 'screen_share', 'screen_share_audio'];

interface RoleRow {
  /** Nobody moderates a higher rank. */
  readonly rank: number;
  readonly permissions: Permissions;
}

const everySource = [...sourceOrder];

/** Each role is a row. */
export const roles: Readonly<Record<Role, RoleRow>> = {
  host: {
    rank: 4,
    permissions: {
      publishSources: everySource,
      subscribe: true,
      publishData: true,
      hidden: false,
      moderate: true,
      dispatchAgents: true,
    },
  },
  moderator: {
    rank: 3,
    permissions: {
      publishSources: everySource,
      subscribe: true,
      publishData: true,
      hidden: false,
      moderate: true,
      dispatchAgents: false,
    },
  },
  speaker: {
    rank: 2,
    permissions: {
      publishSources: everySource,
      subscribe: true,
      publishData: true,
      hidden: false,
      moderate: false,
      dispatchAgents: false,
    },
  },
  listener: {
    rank: 1,
    permissions: {
      publishSources: [],
      subscribe: true,
      publishData: false,
      hidden: false,
      moderate: false,
      dispatchAgents: false,
    },
  },
  observer: {
    rank: 0,
    permissions: {
      publishSources: [],
      subscribe: true,
      publishData: false,
      hidden: true,
      moderate: false,
      dispatchAgents: false,
    },
  },
};

/** What each banned privilege takes away (`join` is decided before any right is). */
const bannedSources: Readonly<Record<Privilege, readonly MediaSource[]>> = {
  join: [],
  publish_audio: ['microphone', 'screen_share_audio'],
  publish_video: ['camera', 'screen_share'],
  screen_share: ['screen_share', 'screen_share_audio'],
  data: [],
};

/** Role, then the member's own overrides, then bans: what is left. */
export const permissionsOf = (
  role: Role,
  overrides: PermissionOverrides | null,
  banned: readonly Privilege[],
): Permissions => {
  const row = roles[role].permissions;
  if (overrides === null && banned.length === 0) return row;
  const hidden = overrides?.hidden ?? row.hidden;
  const wanted = new Set(overrides?.publishSources ?? row.publishSources);
  for (const privilege of banned) for (const source of bannedSources[privilege]) wanted.delete(source);
  return {
    publishSources: sourceOrder.filter((source) => wanted.has(source)),
    subscribe: overrides?.subscribe ?? row.subscribe,
    // LiveKit leaves out who has sent it where that is somebody hidden: it would pass for a message of ours.
    publishData: (overrides?.publishData ?? row.publishData) && !hidden && !banned.includes('data'),
    hidden,
    moderate: row.moderate,
    dispatchAgents: overrides?.dispatchAgents ?? row.dispatchAgents,
  };
};

/** What clients and other services are told of them. */
export const toJoinPermissions = ({
  publishSources,
  subscribe,
  publishData,
  hidden,
  moderate,
}: Permissions): JoinPermissions => ({ publishSources, subscribe, publishData, hidden, moderate });

/** The `video` claim of a LiveKit token, every grant set (livekit/protocol auth/grants.go). */
export const toVideoGrant = (room: string, permissions: Permissions) => ({
  room,
  roomJoin: true,
  roomCreate: false,
  roomList: false,
  roomRecord: false,
  roomAdmin: false,
  ingressAdmin: false,
  // With `canPublish: true` an empty list of sources means all of them.
  canPublish: permissions.publishSources.length > 0,
  canSubscribe: permissions.subscribe,
  canPublishData: permissions.publishData,
  canPublishSources: permissions.publishSources,
  canUpdateOwnMetadata: false,
  canSubscribeMetrics: false,
  canManageAgentSession: false,
  hidden: permissions.hidden,
  recorder: false,
  agent: false,
});

/** LiveKit's `ParticipantPermission`, complete: `UpdateParticipant` replaces the whole object. */
export const toParticipantPermission = (permissions: Permissions) => ({
  canSubscribe: permissions.subscribe,
  canPublish: permissions.publishSources.length > 0,
  canPublishData: permissions.publishData,
  canPublishSources: permissions.publishSources,
  hidden: permissions.hidden,
  canUpdateMetadata: false,
  canSubscribeMetrics: false,
  canManageAgentSession: false,
  recorder: false,
  agent: false,
});
export type ParticipantPermission = ReturnType<typeof toParticipantPermission>;

/** Whether LiveKit holds just these rights. The order of sources does not count, everything else does. */
export const isSamePermission = (wanted: ParticipantPermission, actual: ParticipantPermission): boolean => {
  const { canPublishSources: wantedSources, ...wantedFlags } = wanted;
  const { canPublishSources: actualSources, ...actualFlags } = actual;
  const flags = Object.keys(wantedFlags) as (keyof typeof wantedFlags)[];
  return (
    flags.every((flag) => wantedFlags[flag] === actualFlags[flag]) &&
    wantedSources.length === actualSources.length &&
    wantedSources.every((source) => actualSources.includes(source))
  );
};
