import type { ProblemCode, Role } from '@realtime-service/contracts';
import { type Permissions, permissionsOf, roles } from './permissions.ts';
import type { Ban, Member, RoomHeader, User } from './room.ts';

/**
 * How long a person who left, and was not removed since, still counts as live: a full reconnect must not be locked out.
 */
export const recentlyLeftMs = 120_000;

/** Most devices of one person with a token that is not used: by inventing devices, one person could take every seat. */
const maxUnusedTokens = 2;

/** One of the person's own sessions in this room, of whichever device. */
export interface OwnSession {
  readonly identity: string;
  readonly deviceId: string | null;
  readonly isLive: boolean;
  readonly endedAtMs: number | null;
  readonly wasRemoved: boolean;
}

/**
 * What is taken in a room with a limit or a device policy: by who is inside or just left, and by tokens not used yet.
 */
export interface Seats {
  /** Distinct identities of other people and of the person's own other devices. */
  readonly takenByOthers: number;
  /**
   * The person's own other devices that come before this one: one that is inside yields only to one that is about to
   * enter, one that has just left also to one that is inside.
   */
  readonly ownOtherDevices: number;
  /** The person's other identities with a token that is not used yet. */
  readonly ownUnusedTokens: number;
  /** Whether this identity has a seat already, or this device by the identity that an earlier device policy gave it. */
  readonly isHeld: boolean;
  /** Whether this very device has a token that it has not used: it was let in, over another one where it took over. */
  readonly isReserved: boolean;
}

/** A room as a decision sees it: without provenance. */
export type RoomFacts = Omit<RoomHeader, 'membersTold' | 'decided' | 'origin'>;
export type MemberFacts = Pick<Member, 'role' | 'displayName' | 'permissions' | 'isRemoved'> &
  Partial<Pick<Member, 'removalReason'>>;
/** A ban that is not lifted. */
export type BanFacts = Pick<Ban, 'privilege' | 'untilMs' | 'reason'>;

/** Everything that a decision rests on, read at one moment. */
export interface Facts {
  readonly room: RoomFacts | null;
  readonly member: MemberFacts | null;
  readonly bans: readonly BanFacts[];
  readonly user: Pick<User, 'isDisabled'> | null;
  readonly isLoginEnded: boolean;
  /** What a fact that could not be read may have changed: nothing but the room's header, or this person's rights. */
  readonly doubt: 'header' | 'person' | null;
  readonly ownSessions: readonly OwnSession[];
  /** Null where the room has neither limit nor device policy, and for `stay`. */
  readonly seats: Seats | null;
}

/**
 * `enter`: desk and door. `stay`: someone inside; what only keeps people from entering throws nobody out. `act`:
 * someone who wants to see or moderate; what keeps from entering does not matter, but doubt about the rights does.
 */
export type Request = {
  /** When the login ends by policy, milliseconds since the epoch. */
  readonly loginEndsAtMs: number | null;
} & (
  | { readonly purpose: 'enter'; readonly takeOver: boolean }
  /** The identity that is inside, and the one that the device policy gives that device now. */
  | { readonly purpose: 'stay'; readonly identity: string; readonly dueIdentity: string }
  | { readonly purpose: 'act' }
);
type EnterRequest = Extract<Request, { readonly purpose: 'enter' }>;
type StayRequest = Extract<Request, { readonly purpose: 'stay' }>;

export type DenyReason =
  | 'user_disabled'
  | 'login_ended'
  | 'unknown_room'
  | 'not_a_member'
  | 'member_removed'
  | 'room_closed'
  | 'banned'
  | 'suspect'
  | 'not_open'
  | 'schedule_over'
  | 'locked'
  | 'device_conflict'
  | 'full'
  | 'no_moderator'
  | 'higher_role'
  | 'own_rights';

export interface Allowed {
  readonly kind: 'allow';
  readonly role: Role;
  readonly displayName: string | null;
  readonly permissions: Permissions;
  /** When a ban or the login ends, and the answer with it; milliseconds since the epoch. A room's end is the room's. */
  readonly changesAtMs: number | null;
}

export interface Denied {
  readonly kind: 'deny';
  readonly code: ProblemCode;
  readonly reason: DenyReason;
  /** `absence`: nothing is known, which a projection that is behind also looks like. `fact`: something says so. */
  readonly evidence: 'fact' | 'absence';
  readonly opensAtMs: number | null;
  /** What was said to people for a reason, where something was. */
  readonly message: string | null;
}

export type Verdict = Allowed | Denied;

const denyCode: Readonly<Record<DenyReason, ProblemCode>> = {
  user_disabled: 'user_disabled',
  login_ended: 'unauthenticated',
  unknown_room: 'room_not_found',
  not_a_member: 'room_not_found',
  member_removed: 'room_not_found',
  room_closed: 'room_closed',
  banned: 'banned',
  suspect: 'projection_stale',
  not_open: 'room_not_open',
  schedule_over: 'room_closed',
  locked: 'room_locked',
  device_conflict: 'device_conflict',
  full: 'room_full',
  no_moderator: 'forbidden',
  higher_role: 'forbidden',
  own_rights: 'forbidden',
};

const deny = (reason: DenyReason, more: Partial<Denied> = {}): Denied => ({
  kind: 'deny',
  code: denyCode[reason],
  reason,
  evidence: reason === 'unknown_room' || reason === 'not_a_member' ? 'absence' : 'fact',
  opensAtMs: null,
  message: null,
  ...more,
});

/**
 * Whether one of these sessions is inside, or was until a moment ago. A removal of the person ends what was left of the
 * sessions before it: a lost connection of a moment ago brings nobody back who was removed since. An end that lies far
 * ahead was dated before the clock was set back.
 */
const isPresent = (sessions: readonly OwnSession[], nowMs: number): boolean => {
  const recent = sessions.filter(
    ({ isLive, endedAtMs }) => isLive || (endedAtMs !== null && Math.abs(nowMs - endedAtMs) < recentlyLeftMs),
  );
  const wasRemovedSince = (timeMs: number): boolean =>
    recent.some(({ wasRemoved, endedAtMs }) => wasRemoved && endedAtMs !== null && endedAtMs >= timeMs);
  return recent.some(({ isLive, endedAtMs }) => isLive || !wasRemovedSince(endedAtMs ?? nowMs));
};

/** A tombstone is no member, nor is somebody of whom only an update is known. */
const activeMember = (member: MemberFacts | null): (MemberFacts & { readonly role: Role }) | null =>
  member !== null && member.role !== null && !member.isRemoved ? { ...member, role: member.role } : null;

/** The role by which this person belongs here, or why there is none. */
const membership = (room: RoomFacts, member: MemberFacts | null): Role | DenyReason => {
  const active = activeMember(member);
  if (active !== null) return active.role;
  if (room.access === 'authenticated') return room.defaultRole;
  return member?.isRemoved ? 'member_removed' : 'not_a_member';
};

const isRole = (value: Role | DenyReason): value is Role => Object.hasOwn(roles, value);

/**
 * The role of a person in this room, whatever keeps the person out at the moment; null for whom it does not concern.
 */
export const roleIn = (room: RoomFacts, member: MemberFacts | null): Role | null => {
  const role = membership(room, member);
  return isRole(role) ? role : null;
};

/** Why a room is over for everybody, at this moment: for good, or by its schedule. */
export const endOf = (
  { state, closesAtMs }: Pick<RoomFacts, 'state' | 'closesAtMs'>,
  nowMs: number,
): 'room_closed' | 'schedule_over' | null => {
  if (state === 'closed') return 'room_closed';
  return closesAtMs !== null && closesAtMs <= nowMs ? 'schedule_over' : null;
};

/** Somebody with a right to be here who wants to enter. */
interface Entry {
  readonly facts: Facts;
  readonly room: RoomFacts;
  readonly permissions: Permissions;
  readonly request: EnterRequest;
  readonly nowMs: number;
}

/** Reasons that keep people from entering and throw nobody out. */
const denyEntry = ({ facts, room, permissions, request, nowMs }: Entry): Denied | null => {
  if (!isPresent(facts.ownSessions, nowMs)) {
    if (facts.doubt !== null) return deny('suspect');
    if (room.opensAtMs !== null && room.opensAtMs > nowMs) return deny('not_open', { opensAtMs: room.opensAtMs });
    if (room.isLocked && !permissions.moderate) return deny('locked');
  }
  // Whom nobody sees takes no seat: a full room would tell of them.
  return facts.seats === null || permissions.hidden ? null : denySeat(room, facts.seats, request);
};

/** An identity keeps the seat that it has; the person's next device needs one of its own. */
const denySeat = (room: RoomFacts, seats: Seats, { takeOver }: EnterRequest): Denied | null => {
  const { maxParticipants, devicePolicy } = room;
  const { takenByOthers, ownOtherDevices, ownUnusedTokens, isHeld, isReserved } = seats;
  if (devicePolicy.mode === 'single_oldest' && ownOtherDevices > 0 && !takeOver && !isReserved)
    return deny('device_conflict');
  if (isHeld) return null;
  if (maxParticipants !== null && takenByOthers >= maxParticipants) return deny('full');
  if (devicePolicy.mode !== 'multi') return null;
  const { max = Number.POSITIVE_INFINITY } = devicePolicy;
  return ownOtherDevices >= max || ownUnusedTokens >= maxUnusedTokens ? deny('device_conflict') : null;
};

/**
 * The one rule of take-over. Where a person may have one device, an identity of an earlier policy ends once the one
 * that today's policy gives is inside.
 */
const isReplaced = ({ room, ownSessions }: Facts, { identity, dueIdentity }: StayRequest): boolean =>
  isOneDevice(room) &&
  dueIdentity !== identity &&
  ownSessions.some((session) => session.isLive && session.identity === dueIdentity);

const isOneDevice = (room: RoomFacts | null): room is RoomFacts => room !== null && room.devicePolicy.mode !== 'multi';

/** Whatever takes every right from a person or ends the room; a closed room says so before a ban does. */
const denyAll = (room: RoomFacts, bans: readonly BanFacts[], nowMs: number): Denied | null => {
  if (room.state === 'closed') return deny('room_closed', { message: room.closingReason });
  const ban = bans.find(({ privilege }) => privilege === 'join');
  if (ban !== undefined) return deny('banned', { message: ban.reason });
  const end = endOf(room, nowMs);
  return end === null ? null : deny(end);
};

/**
 * May this person be in this room, and with which rights, at this moment? The only place that decides: the desk and
 * the door ask with `enter`, the worker with `stay`, views and moderation with `act`. What concerns the person comes
 * before what concerns the room, and membership before the room's state, so that a refusal tells a stranger nothing
 * about a room.
 */
export const authorise = (facts: Facts, request: Request, nowMs: number): Verdict => {
  const { room, member, user } = facts;
  const { loginEndsAtMs } = request;
  if (user?.isDisabled) return deny('user_disabled');
  if (facts.isLoginEnded || (loginEndsAtMs !== null && loginEndsAtMs <= nowMs)) return deny('login_ended');
  if (room === null || room.state === 'unknown') return deny('unknown_room');
  const active = facts.bans.filter(({ untilMs }) => untilMs === null || untilMs > nowMs);
  const fact = denyAll(room, active, nowMs);
  const role = membership(room, member);
  if (!isRole(role)) {
    const message = member?.removalReason ?? null;
    return deny(role, { message, ...(fact !== null && { evidence: 'fact' }) });
  }
  if (fact !== null) return fact;
  const own = activeMember(member);
  // A header in doubt leaves members their roles; those of all others come from it.
  const areRightsDoubted = facts.doubt === 'person' || (facts.doubt === 'header' && own === null);
  if (request.purpose === 'act' && areRightsDoubted) return deny('suspect');
  const banned = active.map(({ privilege }) => privilege);
  const permissions = permissionsOf(role, own?.permissions ?? null, banned);
  const denied = request.purpose === 'enter' ? denyEntry({ facts, room, permissions, request, nowMs }) : null;
  if (denied !== null) return denied;
  if (request.purpose === 'stay' && isReplaced(facts, request)) return deny('device_conflict');
  const ends = [...active.map(({ untilMs }) => untilMs), loginEndsAtMs].filter((end) => end !== null);
  return {
    kind: 'allow',
    role,
    displayName: own?.displayName ?? null,
    permissions,
    changesAtMs: ends.length > 0 ? Math.min(...ends) : null,
  };
};

/** What somebody wants to do to somebody else. */
export interface Moderation {
  readonly byUserId: string;
  /** When the login of whoever wants it ends by policy, milliseconds since the epoch. */
  readonly loginEndsAtMs: number | null;
  /** Null where there is nobody by that name. */
  readonly target: { readonly userId: string | null; readonly member: MemberFacts | null } | null;
  /** `session`: one stay ends or one track falls silent. `rights`: a right is taken or given back. */
  readonly concerns: 'session' | 'rights';
}

/**
 * May this person, whose facts these are, do that? Whoever moderates nobody is refused before anything is said about
 * the target. Nobody moderates a higher role, nor the own rights: a host who took them would have nobody to give them
 * back.
 */
export const authoriseModeration = (
  facts: Facts,
  { byUserId, loginEndsAtMs, target, concerns }: Moderation,
  nowMs: number,
): Verdict => {
  const verdict = authorise(facts, { purpose: 'act', loginEndsAtMs }, nowMs);
  if (verdict.kind === 'deny') return verdict;
  if (!verdict.permissions.moderate) return deny('no_moderator');
  if (target === null) return verdict;
  if (target.userId === byUserId) return concerns === 'rights' ? deny('own_rights') : verdict;
  const role = facts.room === null ? null : roleIn(facts.room, target.member);
  return role !== null && roles[role].rank > roles[verdict.role].rank ? deny('higher_role') : verdict;
};

const ofDevice = (userId: string, deviceId: string): string => `${userId}:${deviceId}`;

/** The identity that a person's device has in a room, as the room's device policy says. Nothing parses it back. */
export const identityOf = (room: Pick<RoomHeader, 'devicePolicy'>, userId: string, deviceId: string | null): string =>
  room.devicePolicy.mode === 'multi' && deviceId !== null ? ofDevice(userId, deviceId) : userId;

/**
 * Whether the desk may have signed this identity for this person and device, by whatever device policy the room had.
 * Where a client may write its own attributes, they do not become somebody else's.
 */
export const isIdentityOf = (
  identity: string,
  { userId, deviceId }: { readonly userId: string; readonly deviceId: string | null },
): boolean => identity === userId || (deviceId !== null && identity === ofDevice(userId, deviceId));

/** The person's own identities inside that this one replaces: each of them is to be asked about. */
export const replacedBy = (
  { room, ownSessions }: Pick<Facts, 'room' | 'ownSessions'>,
  userId: string,
  identity: string,
): string[] => {
  const isDue = ({ deviceId }: OwnSession): boolean =>
    isOneDevice(room) && identityOf(room, userId, deviceId) === identity;
  return ownSessions
    .filter((session) => session.isLive && session.identity !== identity && isDue(session))
    .map((session) => session.identity);
};

/** Whether entering takes a seat, so that seats must be counted under the room's lock. */
export const needsSeat = (room: Pick<RoomHeader, 'maxParticipants' | 'devicePolicy'>): boolean =>
  room.maxParticipants !== null ||
  room.devicePolicy.mode === 'single_oldest' ||
  (room.devicePolicy.mode === 'multi' && room.devicePolicy.max !== undefined);
