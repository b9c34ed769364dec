import {
  type DevicePolicy,
  type LogPosition,
  type MemberData,
  type PermissionOverrides,
  type Privilege,
  type Role,
  type RoomAccess,
  type RoomEvent,
  type RoomEventData,
  type RoomSettings,
  toLogPosition,
} from '@realtime-service/contracts';
import { following, isLaterInLog, isNewer, isSamePlace, type Origin, type Version, versionAfter } from './origin.ts';

export interface RoomHeader {
  readonly roomId: string;
  /** `unknown`: only LiveKit or a member's fact has named it so far. `closed` is terminal. */
  readonly state: 'unknown' | 'open' | 'closed';
  readonly name: string | null;
  readonly access: RoomAccess;
  readonly defaultRole: Role;
  readonly opensAtMs: number | null;
  readonly closesAtMs: number | null;
  readonly maxParticipants: number | null;
  readonly devicePolicy: DevicePolicy;
  readonly settings: RoomSettings;
  readonly isLocked: boolean;
  /** For people. */
  readonly closingReason: string | null;
  /** The last full state of the members: an older fact brings in nobody whom it left out. Null where there was none. */
  readonly membersTold: Version | null;
  /** Of the last fact that said more than a name: a dead letter that is retried counts where it stands above that. */
  readonly decided: Version | null;
  readonly origin: Origin | null;
}

export interface Member {
  readonly roomId: string;
  readonly userId: string;
  /** Null while only an update without a role has named this person: not a member yet. */
  readonly role: Role | null;
  readonly displayName: string | null;
  readonly permissions: PermissionOverrides | null;
  /** A tombstone: kept, so that an older fact cannot bring the member back. */
  readonly isRemoved: boolean;
  /** For people. */
  readonly removalReason: string | null;
  /** As a room's; of a tombstone, too, an update that it left without effect. */
  readonly decided: Version;
  readonly origin: Origin;
}

export interface Ban {
  readonly roomId: string;
  readonly userId: string;
  readonly privilege: Privilege;
  readonly untilMs: number | null;
  readonly isLifted: boolean;
  /** For people. */
  readonly reason: string | null;
  readonly origin: Origin;
}

export interface User {
  readonly userId: string;
  readonly isDisabled: boolean;
  readonly origin: Origin;
}

export interface EndedLogin {
  readonly userId: string;
  readonly loginId: string;
  readonly origin: Origin;
}

/** What a doubt is about; ids that do not apply are ''. */
export interface Doubted {
  /** `room`: a member, or more, that could not be named; the others: that entity. */
  readonly scope: 'room' | 'header' | 'member' | 'ban' | 'user' | 'login';
  readonly roomId: string;
  readonly userId: string;
  /** The privilege of a ban ('' where it could not be read: any of them), the id of a login. */
  readonly detail: string;
}

/**
 * Doubt that a fact which could not be read has left: entering is refused until a newer fact settles it. One for each
 * dead letter (and scope), so that to give one letter up settles nothing that another has left.
 */
export interface Suspect extends Doubted {
  readonly cause: LogPosition;
  readonly isHealed: boolean;
  /** The record that raised it, or the one that settled it. */
  readonly origin: Origin;
}

/** An order that concerns one session only and expires; it is checked against the session's sid. */
export interface Edge {
  readonly kind: 'kick' | 'mute';
  readonly roomId: string;
  readonly identity: string;
  readonly participantSid: string;
  readonly trackSid: string | null;
  readonly by: string;
  /** For people. */
  readonly reason: string | null;
  readonly origin: Origin;
}

/** What a fact changed: whole rows, one per touched entity. */
export type RoomChange =
  | { readonly entity: 'room'; readonly row: RoomHeader }
  | { readonly entity: 'member'; readonly row: Member }
  | { readonly entity: 'ban'; readonly row: Ban }
  | { readonly entity: 'user'; readonly row: User }
  | { readonly entity: 'login'; readonly row: EndedLogin }
  | { readonly entity: 'suspect'; readonly row: Suspect }
  | { readonly entity: 'edge'; readonly row: Edge };

/** Ids cannot contain NUL, so joined keys are unambiguous. */
export const keyOf = (first: string, second: string, third?: string, fourth?: string): string => {
  if (third === undefined) return `${first}\0${second}`;
  return fourth === undefined ? `${first}\0${second}\0${third}` : `${first}\0${second}\0${third}\0${fourth}`;
};

/** One dead letter raises at most one doubt of a scope. */
export const keyOfSuspect = ({ scope, cause }: Pick<Suspect, 'scope' | 'cause'>): string =>
  keyOf(scope, cause.topic, String(cause.partition), String(cause.offset));

/** The entities that the facts at hand touch; everything the fold may look at. */
export interface RoomEntities {
  readonly rooms: ReadonlyMap<string, RoomHeader>;
  readonly members: Pick<ReadonlyMap<string, Member>, 'get' | 'has'>;
  readonly bans: ReadonlyMap<string, Ban>;
  readonly users: ReadonlyMap<string, User>;
  readonly logins: ReadonlyMap<string, EndedLogin>;
  readonly suspects: ReadonlyMap<string, Suspect>;
  readonly doubtsAbout: (entity: Doubted) => Iterable<Suspect>;
  /** All doubts about a room and whoever is in it. */
  readonly doubtsIn: (roomId: string) => Iterable<Suspect>;
  /** Of a room those who are not removed, for full-state facts: a long life leaves many more who are. */
  readonly membersOf: (roomId: string) => Iterable<Member>;
}

export const unknownRoom = (roomId: string): RoomHeader => ({
  roomId,
  state: 'unknown',
  name: null,
  access: 'members',
  defaultRole: 'listener',
  opensAtMs: null,
  closesAtMs: null,
  maxParticipants: null,
  devicePolicy: { mode: 'multi' },
  settings: {},
  isLocked: false,
  closingReason: null,
  membersTold: null,
  decided: null,
  origin: null,
});

const toMs = (timestamp: string | undefined): number | null => (timestamp === undefined ? null : Date.parse(timestamp));

/** Absent leaves a field as it is, null sets it back to what an unknown room has. */
const patch = <T>(value: T | null | undefined, current: T, cleared: T): T =>
  value === undefined ? current : (value ?? cleared);

const patchTime = (value: string | null | undefined, current: number | null): number | null =>
  value === undefined ? current : toMs(value ?? undefined);

/** What creations and updates say of a room. */
type ToldFields = Omit<
  RoomHeader,
  'roomId' | 'state' | 'isLocked' | 'closingReason' | 'membersTold' | 'decided' | 'origin'
>;

const createdHeader = (
  roomId: string,
  data: RoomEventData<'room.created'>,
  stored: RoomHeader,
): ToldFields & Pick<RoomHeader, 'roomId' | 'isLocked'> => {
  const blank = unknownRoom(roomId);
  return {
    roomId,
    name: data.name ?? null,
    access: data.access ?? blank.access,
    defaultRole: data.defaultRole ?? blank.defaultRole,
    opensAtMs: toMs(data.opensAt),
    closesAtMs: toMs(data.closesAt),
    maxParticipants: data.maxParticipants ?? null,
    devicePolicy: data.devicePolicy ?? blank.devicePolicy,
    settings: data.settings ?? blank.settings,
    isLocked: stored.isLocked,
  };
};

const updatedHeader = (data: RoomEventData<'room.updated'>, stored: RoomHeader): ToldFields => {
  const blank = unknownRoom(stored.roomId);
  return {
    name: patch(data.name, stored.name, blank.name),
    access: patch(data.access, stored.access, blank.access),
    defaultRole: patch(data.defaultRole, stored.defaultRole, blank.defaultRole),
    opensAtMs: patchTime(data.opensAt, stored.opensAtMs),
    closesAtMs: patchTime(data.closesAt, stored.closesAtMs),
    maxParticipants: patch(data.maxParticipants, stored.maxParticipants, blank.maxParticipants),
    devicePolicy: patch(data.devicePolicy, stored.devicePolicy, blank.devicePolicy),
    settings: patch(data.settings, stored.settings, blank.settings),
  };
};

const settled = (doubts: Iterable<Suspect>, origin: Origin): RoomChange[] =>
  [...doubts]
    .filter(({ isHealed }) => !isHealed)
    .map((suspect) => ({ entity: 'suspect', row: { ...suspect, isHealed: true, origin } }));

const older = (doubts: Iterable<Suspect>, origin: Origin): Suspect[] =>
  [...doubts].filter(({ cause }) => isLaterInLog(origin, cause));

/** Fields of an update that decide about nobody's rights. */
const harmlessFields = new Set(['userId', 'displayName', 'name', 'reason']);

/** Whether an update says nothing that a doubt could be about: it raises none, and ends none. */
export const isHarmless = (update: object): boolean => Object.keys(update).every((field) => harmlessFields.has(field));

/** Below every record of its partition: what a row has that only a name has made. */
const nothingDecided = ({ topic, partition }: Origin): Version => ({ topic, partition, offset: -1n, sequence: null });

/** What an update has decided after it: a harmless one nothing more. */
const decidedBy = (update: object, origin: Origin, before: Version | null): Version =>
  isHarmless(update) ? (before ?? nothingDecided(origin)) : versionAfter(origin, before);

const withoutHealing = (changes: readonly RoomChange[]): RoomChange[] =>
  changes.filter(({ entity }) => entity !== 'suspect');

/** What an update changes; the doubts that it would end are left where it is harmless. */
const updated = (update: object, changes: RoomChange[]): RoomChange[] =>
  isHarmless(update) ? withoutHealing(changes) : changes;

type Entity = Partial<Doubted> & Pick<Doubted, 'scope'>;
/** With '' for the ids that do not apply. */
export const doubted = (entity: Entity): Doubted => ({ roomId: '', userId: '', detail: '', ...entity });

/** A newer valid fact of an entity ends every doubt about it. */
const heal = (entities: RoomEntities, entity: Entity, origin: Origin): RoomChange[] =>
  entities.suspects.size === 0 ? [] : settled(older(entities.doubtsAbout(doubted(entity)), origin), origin);

/** Full state settles every doubt about a room, but not those about users, who belong to no room. */
const healRoom = (entities: RoomEntities, roomId: string, origin: Origin): RoomChange[] =>
  settled(older(entities.doubtsIn(roomId), origin), origin);

/** Ends the doubts that one dead letter has left, and no others. */
export const settleDeadLetter = (entities: RoomEntities, letter: LogPosition, origin: Origin): RoomChange[] =>
  settled(
    [...entities.suspects.values()].filter(({ cause }) => isSamePlace(cause, letter)),
    origin,
  );

const changeHeader = (
  entities: RoomEntities,
  roomId: string,
  origin: Origin,
  change: (stored: RoomHeader) => Partial<RoomHeader>,
): RoomChange[] => {
  const stored = entities.rooms.get(roomId) ?? unknownRoom(roomId);
  if (!isNewer(origin, stored.origin)) return [];
  const state = stored.state === 'closed' ? 'closed' : 'open';
  const versions = { decided: versionAfter(origin, stored.decided), origin: following(origin, stored.origin) };
  return [
    { entity: 'room', row: { ...stored, state, ...versions, ...change(stored) } },
    ...heal(entities, { scope: 'header', roomId }, origin),
  ];
};

/** Terminal, so a newer header that overtook it takes nothing back. */
const closeRoom = (
  entities: RoomEntities,
  roomId: string,
  data: RoomEventData<'room.closed'>,
  origin: Origin,
): RoomChange[] => {
  const stored = entities.rooms.get(roomId);
  const closed = { state: 'closed', closingReason: data?.reason ?? null } as const;
  if (stored === undefined || isNewer(origin, stored.origin))
    return changeHeader(entities, roomId, origin, () => closed);
  return stored.state === 'closed' ? [] : [{ entity: 'room', row: { ...stored, ...closed } }];
};

const memberChange = (entities: RoomEntities, row: Member): RoomChange[] => [
  { entity: 'member', row },
  ...heal(entities, { scope: 'member', roomId: row.roomId, userId: row.userId }, row.origin),
];

const addMember = (entities: RoomEntities, roomId: string, data: MemberData, origin: Origin): RoomChange[] => {
  const stored = entities.members.get(keyOf(roomId, data.userId));
  const added: Member = {
    roomId,
    userId: data.userId,
    role: data.role,
    displayName: data.displayName ?? null,
    permissions: data.permissions ?? null,
    isRemoved: false,
    removalReason: null,
    decided: versionAfter(origin, stored?.decided ?? null),
    origin: following(origin, stored?.origin ?? null),
  };
  // What an update said of somebody who was removed by then is not kept, but overtakes as any other.
  if (stored?.isRemoved && !isNewer(origin, stored.decided)) return [];
  if (stored === undefined || isNewer(origin, stored.origin)) return memberChange(entities, added);
  // The update overtook the addition: what it said stays, what it did not say comes from here.
  if (stored.role === null && !stored.isRemoved)
    return memberChange(entities, {
      ...stored,
      role: data.role,
      displayName: stored.displayName ?? added.displayName,
      permissions: stored.permissions ?? added.permissions,
      decided: isNewer(origin, stored.decided) ? added.decided : stored.decided,
    });
  return [];
};

const updateMember = (
  entities: RoomEntities,
  roomId: string,
  data: RoomEventData<'member.updated'>,
  origin: Origin,
): RoomChange[] => {
  const stored = entities.members.get(keyOf(roomId, data.userId));
  if (stored !== undefined && !isNewer(origin, stored.origin)) return [];
  const decided = decidedBy(data, origin, stored?.decided ?? null);
  // Brings nobody back; but an older addition would be without what this says.
  if (stored?.isRemoved) {
    const isNews = !isHarmless(data) && isNewer(origin, stored.decided);
    return isNews ? [{ entity: 'member', row: { ...stored, decided } }] : [];
  }
  const role = data.role ?? stored?.role ?? null;
  // With an addition still to come, null would be taken for what was not said, and that addition would give them again.
  const cleared = role === null ? {} : null;
  return memberChange(entities, {
    roomId,
    userId: data.userId,
    role,
    displayName: patch<string | null>(data.displayName, stored?.displayName ?? null, null),
    permissions: patch<PermissionOverrides | null>(data.permissions, stored?.permissions ?? null, cleared),
    isRemoved: false,
    removalReason: null,
    decided,
    origin: following(origin, stored?.origin ?? null),
  });
};

const removeMember = (
  entities: RoomEntities,
  roomId: string,
  { userId, reason }: RoomEventData<'member.removed'>,
  origin: Origin,
): RoomChange[] => {
  const stored = entities.members.get(keyOf(roomId, userId));
  if (stored !== undefined && !isNewer(origin, stored.origin)) return [];
  const blank = { roomId, userId, role: null, displayName: null, permissions: null };
  return memberChange(entities, {
    ...blank,
    ...stored,
    isRemoved: true,
    removalReason: reason ?? null,
    decided: versionAfter(origin, stored?.decided ?? null),
    origin: following(origin, stored?.origin ?? null),
  });
};

/** A room's `sequence` says nothing about its members: among theirs, the log's order decides. */
const asMemberOrigin = (origin: Origin): Origin => ({ ...origin, sequence: null });

/** Of several entries about one person the last counts. */
const byUser = (members: readonly MemberData[]): ReadonlyMap<string, MemberData> =>
  new Map(members.map((member) => [member.userId, member]));

/** Full state of a room's members, which settles every doubt about the room, too. */
export const evolveFullState = (
  entities: RoomEntities,
  roomId: string,
  members: readonly MemberData[],
  origin: Origin,
): RoomChange[] => {
  const named = byUser(members);
  const unnamed = [...entities.membersOf(roomId)].filter(({ userId }) => !named.has(userId));
  const memberOrigin = asMemberOrigin(origin);
  const changes = [
    ...unnamed.flatMap(({ userId }) => removeMember(entities, roomId, { userId }, memberOrigin)),
    ...[...named.values()].flatMap((member) => addMember(entities, roomId, member, memberOrigin)),
  ];
  return [...withoutHealing(changes), ...healRoom(entities, roomId, origin)];
};

const createRoom = (
  entities: RoomEntities,
  roomId: string,
  data: RoomEventData<'room.created'>,
  origin: Origin,
): RoomChange[] => {
  const { members } = data;
  const header = changeHeader(entities, roomId, origin, (stored) => ({
    ...createdHeader(roomId, data, stored),
    membersTold: members === undefined ? stored.membersTold : versionAfter(origin, stored.membersTold),
  }));
  if (members === undefined) return header;
  if (header.length > 0) return [...withoutHealing(header), ...evolveFullState(entities, roomId, members, origin)];
  if (!isNewer(origin, entities.rooms.get(roomId)?.membersTold ?? null)) return [];
  // Overtaken by a newer header: it is no full state any more, but a person it alone names is still a fact.
  return [...byUser(members).values()]
    .filter(({ userId }) => !entities.members.has(keyOf(roomId, userId)))
    .flatMap((member) => addMember(entities, roomId, member, asMemberOrigin(origin)));
};

/**
 * A ban is an entity of its own: it settles no doubt about whether the person is still a member, or about other bans.
 */
const changeBan = (entities: RoomEntities, row: Ban): RoomChange[] => {
  const { roomId, userId, privilege, origin } = row;
  const stored = entities.bans.get(keyOf(roomId, userId, privilege))?.origin ?? null;
  if (!isNewer(origin, stored)) return [];
  return [
    { entity: 'ban', row: { ...row, origin: following(origin, stored) } },
    ...heal(entities, { scope: 'ban', roomId, userId, detail: privilege }, origin),
  ];
};

const changeUser = (entities: RoomEntities, row: User): RoomChange[] => {
  const stored = entities.users.get(row.userId)?.origin ?? null;
  if (!isNewer(row.origin, stored)) return [];
  return [
    { entity: 'user', row: { ...row, origin: following(row.origin, stored) } },
    ...heal(entities, { scope: 'user', userId: row.userId }, row.origin),
  ];
};

const edgeOf = ({ identity, participantSid, by, reason }: RoomEventData<'participant.kick_requested'>) => ({
  identity,
  participantSid,
  by,
  reason: reason ?? null,
});

/** Folds one room event: the rows that it changes, or none when something newer is known. */
export const evolveRoom = (entities: RoomEntities, event: RoomEvent, origin: Origin): RoomChange[] => {
  const roomId = event.subject;
  switch (event.type) {
    case 'room.created':
      return createRoom(entities, roomId, event.data, origin);
    case 'room.updated': {
      const change = (stored: RoomHeader): Partial<RoomHeader> => ({
        ...updatedHeader(event.data, stored),
        decided: decidedBy(event.data, origin, stored.decided),
      });
      return updated(event.data, changeHeader(entities, roomId, origin, change));
    }
    case 'room.locked':
      return changeHeader(entities, roomId, origin, () => ({ isLocked: true }));
    case 'room.unlocked':
      return changeHeader(entities, roomId, origin, () => ({ isLocked: false }));
    case 'room.closed':
      return closeRoom(entities, roomId, event.data, origin);
    case 'member.added':
      return addMember(entities, roomId, event.data, origin);
    case 'member.updated':
      return updated(event.data, updateMember(entities, roomId, event.data, origin));
    case 'member.removed':
      return removeMember(entities, roomId, event.data, origin);
    case 'member.banned': {
      const { userId, privilege, until, reason = null } = event.data;
      return changeBan(entities, { roomId, userId, privilege, untilMs: toMs(until), isLifted: false, reason, origin });
    }
    case 'member.unbanned': {
      const { userId, privilege } = event.data;
      return changeBan(entities, { roomId, userId, privilege, untilMs: null, isLifted: true, reason: null, origin });
    }
    case 'user.disabled':
      return changeUser(entities, { userId: event.data.userId, isDisabled: true, origin });
    case 'user.enabled':
      return changeUser(entities, { userId: event.data.userId, isDisabled: false, origin });
    case 'login.ended': {
      const { userId, sid } = event.data;
      if (entities.logins.has(keyOf(userId, sid))) return [];
      // Settles no doubt about the user: whoever is disabled is logged out in the same breath.
      const healed = heal(entities, { scope: 'login', userId, detail: sid }, origin);
      return [{ entity: 'login', row: { userId, loginId: sid, origin } }, ...healed];
    }
    case 'participant.kick_requested':
      return [{ entity: 'edge', row: { kind: 'kick', roomId, trackSid: null, ...edgeOf(event.data), origin } }];
    case 'track.mute_requested': {
      const { trackSid } = event.data;
      return [{ entity: 'edge', row: { kind: 'mute', roomId, trackSid, ...edgeOf(event.data), origin } }];
    }
    case 'dead_letter.discarded':
      return settleDeadLetter(entities, toLogPosition(event.data), origin);
    case 'dead_letter.retried':
      return [];
  }
};
