import {
  DeviceId,
  type LivekitFact,
  type LivekitObserved,
  type LivekitParticipant,
  type LivekitRoom,
  LoginEnd,
  LoginId,
  type ParticipantKind,
  Traceparent,
  UserId,
} from '@realtime-service/contracts';

/** One life of a LiveKit room: from its creation to its end it has one sid. */
export interface RoomLife {
  readonly roomId: string;
  readonly roomSid: string;
  readonly createdAtMs: number;
  readonly isLive: boolean;
}

/** One stay of a participant: LiveKit gives each full (re)connect a new participant sid. */
export interface Session {
  readonly roomId: string;
  readonly roomSid: string;
  readonly participantSid: string;
  readonly identity: string;
  /** From our signed attributes, never from the identity. Null for participants that we did not admit. */
  readonly userId: string | null;
  readonly deviceId: string | null;
  readonly loginId: string | null;
  /** The trace of the join that issued the token: a link, never a parent. */
  readonly trace: string | null;
  readonly kind: ParticipantKind;
  readonly isHidden: boolean;
  readonly isLive: boolean;
  readonly joinedAtMs: number;
  /** LiveKit's own version within this sid. */
  readonly version: number;
  readonly endReason: string | null;
  readonly endedAtMs: number | null;
  /** When the newest fact about it was received, milliseconds since the epoch: an older list does not end it. */
  readonly lastFactAtMs: number;
}

export type PresenceChange =
  | { readonly entity: 'life'; readonly row: RoomLife }
  | { readonly entity: 'session'; readonly row: Session };

/** The lives and sessions that the facts at hand touch: no more than is said here has to be known. */
export interface PresenceEntities {
  readonly lives: ReadonlyMap<string, RoomLife>;
  /** Those that live: what has ended is passed over. */
  readonly sessionsOf: (roomId: string) => Iterable<Session>;
  /** Asked for those that a fact names. */
  readonly session: (roomId: string, roomSid: string, participantSid: string) => Session | undefined;
  /**
   * Those that live, those that a fact names, and of the others, in each life of the room that a fact names, the last to
   * join: whether anybody joined later is all that is asked about who has left.
   */
  readonly sessionsOfIdentity: (roomId: string, identity: string) => Iterable<Session>;
}

/** Names of our own signed attributes in a LiveKit token. */
export const attributes = {
  user: 'rt.user',
  device: 'rt.device',
  login: 'rt.login',
  /** When that login ends by policy, seconds since the epoch. */
  loginEnd: 'rt.login_end',
  trace: 'rt.trace',
} as const;

interface Signed {
  readonly attributes?: Readonly<Record<string, string | undefined>> | undefined;
}

const signedAs = (id: typeof UserId, { attributes: signed }: Signed, name: string): string | null => {
  const value = signed?.[name];
  return value === undefined ? null : (id.safeParse(value).data ?? null);
};

/** Whom our signed attributes name. */
export const signedUserOf = (participant: Signed): string | null => signedAs(UserId, participant, attributes.user);

/** When that person's login ends by policy, milliseconds since the epoch. */
export const loginEndOf = (participant: Signed): number | null => {
  const seconds = signedAs(LoginEnd, participant, attributes.loginEnd);
  return seconds === null ? null : Number(seconds) * 1000;
};

/**
 * What our signed attributes say. Whoever has a key of LiveKit's may sign others under the same names: what the desk
 * would never have signed counts as not said, since no table could hold it.
 */
export const signedOf = (participant: Signed) => ({
  userId: signedUserOf(participant),
  deviceId: signedAs(DeviceId, participant, attributes.device),
  loginId: signedAs(LoginId, participant, attributes.login),
  trace: signedAs(Traceparent, participant, attributes.trace),
});

const creationMs = (room: LivekitRoom): number => room.creationTimeMs || (room.creationTime ?? 0) * 1000;
const joinedMs = (participant: LivekitParticipant): number =>
  participant.joinedAtMs || (participant.joinedAt ?? 0) * 1000;

const end = (session: Session, reason: string, atMs: number): Session => ({
  ...session,
  isLive: false,
  endReason: reason,
  endedAtMs: atMs,
  lastFactAtMs: Math.max(session.lastFactAtMs, atMs),
});

const endAll = (
  sessions: Iterable<Session>,
  isEnded: (session: Session) => boolean,
  reason: string,
  atMs: number,
): PresenceChange[] => {
  const changes: PresenceChange[] = [];
  for (const session of sessions)
    if (session.isLive && isEnded(session)) changes.push({ entity: 'session', row: end(session, reason, atMs) });
  return changes;
};

/** Makes this life the room's present one, unless a newer one is known, and ends what older ones left. */
const enterLife = (
  entities: PresenceEntities,
  room: LivekitRoom,
  atMs: number,
): { isCurrent: boolean; changes: PresenceChange[] } => {
  const known = entities.lives.get(room.name);
  if (known?.roomSid === room.sid) return { isCurrent: known.isLive, changes: [] };
  const createdAtMs = creationMs(room);
  if (known !== undefined && known.createdAtMs > createdAtMs) return { isCurrent: false, changes: [] };
  return {
    isCurrent: true,
    changes: [
      { entity: 'life', row: { roomId: room.name, roomSid: room.sid, createdAtMs, isLive: true } },
      ...endAll(entities.sessionsOf(room.name), ({ roomSid }) => roomSid !== room.sid, 'room_replaced', atMs),
    ],
  };
};

const finishLife = (entities: PresenceEntities, room: LivekitRoom, atMs: number): PresenceChange[] => {
  const { changes } = enterLife(entities, room, atMs);
  const known = entities.lives.get(room.name);
  const isCurrent = known?.roomSid === room.sid || changes.length > 0;
  if (!isCurrent) return [];
  const life: PresenceChange = {
    entity: 'life',
    row: { roomId: room.name, roomSid: room.sid, createdAtMs: creationMs(room), isLive: false },
  };
  const alive = endAll(entities.sessionsOf(room.name), () => true, 'ROOM_CLOSED', atMs);
  return known?.roomSid === room.sid && !known.isLive ? alive : [life, ...alive];
};

const sessionOf = (room: LivekitRoom, participant: LivekitParticipant, atMs: number): Session => ({
  roomId: room.name,
  roomSid: room.sid,
  participantSid: participant.sid,
  identity: participant.identity,
  ...signedOf(participant),
  kind: participant.kind,
  isHidden: participant.permission?.hidden ?? false,
  isLive: true,
  joinedAtMs: joinedMs(participant),
  version: participant.version ?? 0,
  endReason: null,
  endedAtMs: null,
  lastFactAtMs: atMs,
});

/** Of one identity the latest to join is the one that lives: whom this one replaced, and whether it was replaced. */
const supersede = (
  entities: PresenceEntities,
  entered: Session,
  atMs: number,
): { isSuperseded: boolean; changes: PresenceChange[] } => {
  const others = [...entities.sessionsOfIdentity(entered.roomId, entered.identity)].filter(
    ({ roomSid, participantSid }) => roomSid === entered.roomSid && participantSid !== entered.participantSid,
  );
  return {
    isSuperseded: others.some(({ joinedAtMs }) => joinedAtMs > entered.joinedAtMs),
    changes: endAll(others, ({ joinedAtMs }) => joinedAtMs < entered.joinedAtMs, 'DUPLICATE_IDENTITY', atMs),
  };
};

/** What one participant is entered from, and when that was. */
interface Sighting {
  readonly atMs: number;
  /** Whether the room's life is the present one. */
  readonly isCurrent: boolean;
  readonly isListed: boolean;
}

/** That a list left it out is only inferred, and lists can be stale: a later one that names it wins. */
const isEnded = ({ isLive, endReason, lastFactAtMs }: Session, { isListed, atMs }: Sighting): boolean =>
  !isLive && !(isListed && endReason === 'not_listed' && lastFactAtMs < atMs);

/** A participant that is there. A sid that left stays ended. */
const enter = (
  entities: PresenceEntities,
  room: LivekitRoom,
  participant: LivekitParticipant,
  sighting: Sighting,
): PresenceChange[] => {
  const { atMs, isCurrent } = sighting;
  const stored = entities.session(room.name, room.sid, participant.sid);
  if (stored !== undefined && (isEnded(stored, sighting) || (participant.version ?? 0) < stored.version)) return [];
  const entered = sessionOf(room, participant, Math.max(atMs, stored?.lastFactAtMs ?? 0));
  if (!isCurrent) return [{ entity: 'session', row: end(entered, 'room_replaced', atMs) }];
  const { isSuperseded, changes } = supersede(entities, entered, atMs);
  return [...changes, { entity: 'session', row: isSuperseded ? end(entered, 'DUPLICATE_IDENTITY', atMs) : entered }];
};

/** LiveKit's fact that one participant is gone. */
type Departure = Extract<
  LivekitFact,
  { readonly type: 'participant_left' | 'participant_connection_aborted' | 'participant_joined' }
>;

const departureReason = ({ type, participant }: Departure): string =>
  type === 'participant_connection_aborted' ? 'CONNECTION_ABORTED' : (participant.disconnectReason ?? 'UNKNOWN_REASON');

const leave = (entities: PresenceEntities, departure: Departure, atMs: number): PresenceChange[] => {
  const { room, participant } = departure;
  const stored = entities.session(room.name, room.sid, participant.sid);
  if (stored !== undefined && !stored.isLive) return [];
  const left = stored ?? sessionOf(room, participant, atMs);
  // If its own arrival is yet to come, whom it replaced is learnt here: that arrival will change nothing.
  return [
    ...supersede(entities, left, atMs).changes,
    { entity: 'session', row: end(left, departureReason(departure), atMs) },
  ];
};

/** LiveKit never uses a sid again: a room that a list names is there, though an earlier list left it out. */
const reviveLife = (
  entities: PresenceEntities,
  room: LivekitRoom,
): { isCurrent: true; changes: PresenceChange[] } | null => {
  const known = entities.lives.get(room.name);
  if (known?.roomSid !== room.sid || known.isLive) return null;
  return { isCurrent: true, changes: [{ entity: 'life', row: { ...known, isLive: true } }] };
};

/** What a list says: who is listed is there; who is known, older than the list and not listed, is not. */
const observe = (entities: PresenceEntities, observed: LivekitObserved): PresenceChange[] => {
  const { room, listedAtMs } = observed;
  const sessions = [...entities.sessionsOf(observed.roomName)];
  const isOlder = ({ lastFactAtMs }: Session): boolean => lastFactAtMs < listedAtMs;
  if (room === null) {
    const life = entities.lives.get(observed.roomName);
    const isGone =
      life?.isLive && life.createdAtMs < listedAtMs && sessions.every((session) => !session.isLive || isOlder(session));
    return [
      ...(isGone ? [{ entity: 'life' as const, row: { ...life, isLive: false } }] : []),
      ...endAll(sessions, isOlder, 'not_listed', listedAtMs),
    ];
  }
  const { isCurrent, changes } = reviveLife(entities, room) ?? enterLife(entities, room, listedAtMs);
  const entered = observed.participants.flatMap((participant) =>
    enter(entities, room, participant, { atMs: listedAtMs, isCurrent, isListed: true }),
  );
  const settled = new Set(observed.participants.map(({ sid }) => sid));
  for (const { entity, row } of entered) if (entity === 'session') settled.add(row.participantSid);
  const gone = endAll(
    sessions,
    (session) => session.roomSid === room.sid && !settled.has(session.participantSid) && isOlder(session),
    'not_listed',
    listedAtMs,
  );
  return [...changes, ...gone, ...entered];
};

/**
 * Folds one LiveKit fact. `receivedAtMs` is the record's time. Facts may arrive shuffled, repeated or not at all:
 * a left or aborted sid stays ended whatever comes later, and a room's older life never ends a newer one.
 */
export const evolvePresence = (
  entities: PresenceEntities,
  fact: LivekitFact,
  receivedAtMs: number,
): PresenceChange[] => {
  switch (fact.type) {
    case 'room_started':
      return enterLife(entities, fact.room, receivedAtMs).changes;
    case 'room_finished':
      return finishLife(entities, fact.room, receivedAtMs);
    case 'participant_joined': {
      const { isCurrent, changes } = enterLife(entities, fact.room, receivedAtMs);
      return [
        ...changes,
        ...enter(entities, fact.room, fact.participant, { atMs: receivedAtMs, isCurrent, isListed: false }),
      ];
    }
    case 'participant_left':
    case 'participant_connection_aborted': {
      const { changes } = enterLife(entities, fact.room, receivedAtMs);
      return [...changes, ...leave(entities, fact, receivedAtMs)];
    }
    case 'track_published':
      return [];
    case 'observed':
      return observe(entities, fact.observed);
  }
};
