import type {
  LivekitFact,
  LivekitObserved,
  LivekitParticipant,
  LivekitRoom,
  ParticipantKind,
} from '@realtime-service/contracts';
import { signedOf } from './signed-attributes.ts';

/** One life of a LiveKit room: from its creation to its end it has one sid. */
export interface RoomLife {
  readonly roomId: string;
  readonly roomSid: string;
  readonly createdAtMs: number;
  readonly isLive: boolean;
  /**
   * When the fact was received that it began or ended by, milliseconds since the epoch: an older list changes neither.
   */
  readonly lastFactAtMs: number;
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
  /** LiveKit told of its end, which is for good. One that is inferred a newer list may show to be wrong. */
  readonly isEndTold: boolean;
  /** When the newest fact about it was received, milliseconds since the epoch: an older list does not end it. */
  readonly lastFactAtMs: number;
}

/** Whose session it is, as other services are told. */
export const sessionOwner = ({
  participantSid,
  identity,
  userId,
  deviceId,
}: Pick<Session, 'participantSid' | 'identity' | 'userId' | 'deviceId'>) => ({
  participantSid,
  identity,
  ...(userId !== null && { userId }),
  ...(deviceId !== null && { deviceId }),
});

/** Others are machines: recorders, agents, ingress, SIP. */
export const isPerson = ({ kind }: Pick<Session, 'kind'>): boolean => kind === 'STANDARD';
/** Whether others in the room see whose it is: of machines and hidden people nothing is told, and they take no seat. */
export const isSeen = (session: Pick<Session, 'kind' | 'isHidden'>): boolean => isPerson(session) && !session.isHidden;

/** LiveKit's reason for a session that RoomService ended. */
export const removedReason = 'PARTICIPANT_REMOVED';
export const wasRemoved = ({ endReason }: Pick<Session, 'endReason'>): boolean => endReason === removedReason;

export type PresenceChange =
  | { readonly entity: 'life'; readonly row: RoomLife }
  | { readonly entity: 'session'; readonly row: Session };

/** The lives and sessions that the facts at hand touch: no more than is said here has to be known. */
export interface PresenceEntities {
  readonly lives: ReadonlyMap<string, RoomLife>;
  /**
   * Every live session of the room, or of its other lives alone where the facts are about single participants of one
   * life. Ended ones may be among them; the fold passes them over.
   */
  readonly sessionsOf: (roomId: string) => Iterable<Session>;
  /** Asked for those that a fact names. */
  readonly session: (roomId: string, roomSid: string, participantSid: string) => Session | undefined;
  /**
   * Those that live, those that a fact names, and of the others, in each life of the room that a fact names, the last
   * to join: whether anybody joined later is all that is asked about who has left.
   */
  readonly sessionsOfIdentity: (roomId: string, identity: string) => Iterable<Session>;
}

const creationMs = (room: LivekitRoom): number => room.creationTimeMs || (room.creationTime ?? 0) * 1000;
const joinedMs = (participant: LivekitParticipant): number =>
  participant.joinedAtMs || (participant.joinedAt ?? 0) * 1000;

/** By how much the clocks of those who receive facts may differ. */
const clocksDifferMs = 60_000;

/** When a list was asked for, and the time when it is compared; milliseconds since the epoch. */
interface ListTimes {
  readonly listedAtMs: number;
  readonly nowMs: number;
}

/**
 * Whether this was heard of since a list was asked for: that knows better than the list. A time that lies far
 * ahead says only that a clock was ahead.
 */
export const isHeardSince = (
  { lastFactAtMs }: Pick<Session, 'lastFactAtMs'>,
  { listedAtMs, nowMs }: ListTimes,
): boolean => lastFactAtMs >= listedAtMs && lastFactAtMs <= nowMs + clocksDifferMs;

interface Ending {
  readonly reason: string;
  readonly atMs: number;
  readonly isTold: boolean;
}

const end = (session: Session, { reason, atMs, isTold }: Ending): Session => ({
  ...session,
  isLive: false,
  endReason: reason,
  endedAtMs: atMs,
  isEndTold: isTold,
  lastFactAtMs: Math.max(session.lastFactAtMs, atMs),
});

const endAll = (
  sessions: Iterable<Session>,
  isEnded: (session: Session) => boolean,
  ending: Ending,
): PresenceChange[] => {
  const changes: PresenceChange[] = [];
  for (const session of sessions)
    if (session.isLive && isEnded(session)) changes.push({ entity: 'session', row: end(session, ending) });
  return changes;
};

const inferred = (reason: 'room_replaced' | 'DUPLICATE_IDENTITY' | 'not_listed', atMs: number): Ending => ({
  reason,
  atMs,
  isTold: false,
});

/** What a room's life changes, and whether it is the present one. */
interface LifeEntry {
  readonly isCurrent: boolean;
  readonly changes: PresenceChange[];
}

const lifeOf = (room: LivekitRoom, isLive: boolean, atMs: number): PresenceChange => ({
  entity: 'life',
  row: { roomId: room.name, roomSid: room.sid, createdAtMs: creationMs(room), isLive, lastFactAtMs: atMs },
});

/** Ends what other lives of the room left. */
const endOthers = (entities: PresenceEntities, room: LivekitRoom, atMs: number): PresenceChange[] =>
  endAll(entities.sessionsOf(room.name), ({ roomSid }) => roomSid !== room.sid, inferred('room_replaced', atMs));

/** Makes this life the room's present one. */
const beginLife = (entities: PresenceEntities, room: LivekitRoom, atMs: number): LifeEntry => ({
  isCurrent: true,
  changes: [lifeOf(room, true, atMs), ...endOthers(entities, room, atMs)],
});

const isOlderLife = (room: LivekitRoom, known: RoomLife | undefined): boolean =>
  known !== undefined && known.roomSid !== room.sid && known.createdAtMs > creationMs(room);

/** The life that a fact is about is the room's present one, unless a newer one is known. */
const enterLife = (entities: PresenceEntities, room: LivekitRoom, atMs: number): LifeEntry => {
  const known = entities.lives.get(room.name);
  if (known?.roomSid === room.sid) return { isCurrent: known.isLive, changes: [] };
  if (isOlderLife(room, known)) return { isCurrent: false, changes: [] };
  return beginLife(entities, room, atMs);
};

/** The room's present life is over, and whoever is left in it; an older one ends nothing. */
const finishLife = (entities: PresenceEntities, room: LivekitRoom, atMs: number): PresenceChange[] => {
  const known = entities.lives.get(room.name);
  if (isOlderLife(room, known)) return [];
  const isKnown = known?.roomSid === room.sid && !known.isLive && known.lastFactAtMs >= atMs;
  const others = known?.roomSid === room.sid ? [] : endOthers(entities, room, atMs);
  const ending: Ending = { reason: 'ROOM_CLOSED', atMs, isTold: true };
  const alive = endAll(entities.sessionsOf(room.name), ({ roomSid }) => roomSid === room.sid, ending);
  return [...(isKnown ? [] : [lifeOf(room, false, atMs)]), ...others, ...alive];
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
  isEndTold: false,
  lastFactAtMs: atMs,
});

/** What one participant is entered from, and when that was. */
interface Sighting {
  readonly atMs: number;
  /** Whether the room's life is the present one. */
  readonly isCurrent: boolean;
  /** Null where no list names it. */
  readonly list: ListTimes | null;
}

/**
 * Of one identity the latest to join is the one that lives: whom this one replaced, and whether it was replaced. One
 * that a list names was replaced only by one that is there, and that was heard of since the list was asked for.
 */
const supersede = (
  entities: PresenceEntities,
  entered: Session,
  { atMs, list }: Pick<Sighting, 'atMs' | 'list'>,
): { isSuperseded: boolean; changes: PresenceChange[] } => {
  const others = [...entities.sessionsOfIdentity(entered.roomId, entered.identity)].filter(
    ({ roomSid, participantSid }) => roomSid === entered.roomSid && participantSid !== entered.participantSid,
  );
  const judges = others.filter((other) => list === null || (other.isLive && isHeardSince(other, list)));
  return {
    isSuperseded: judges.some(({ joinedAtMs }) => joinedAtMs > entered.joinedAtMs),
    changes: endAll(others, ({ joinedAtMs }) => joinedAtMs < entered.joinedAtMs, inferred('DUPLICATE_IDENTITY', atMs)),
  };
};

/** An end that is inferred counts until a later list names who is there all the same. */
const isEnded = (session: Session, { list }: Sighting): boolean =>
  !session.isLive && (session.isEndTold || list === null || isHeardSince(session, list));

/** A session stays whose it was when it began: attributes change only where others let them be written. */
const signedBefore = ({ userId, deviceId, loginId, trace }: Session): ReturnType<typeof signedOf> => ({
  userId,
  deviceId,
  loginId,
  trace,
});

/** A participant that is there. A sid of which LiveKit told that it left stays ended. */
const enter = (
  entities: PresenceEntities,
  room: LivekitRoom,
  participant: LivekitParticipant,
  sighting: Sighting,
): PresenceChange[] => {
  const { atMs, isCurrent } = sighting;
  const stored = entities.session(room.name, room.sid, participant.sid);
  if (stored !== undefined && (isEnded(stored, sighting) || (participant.version ?? 0) < stored.version)) return [];
  const seen = sessionOf(room, participant, Math.max(atMs, stored?.lastFactAtMs ?? 0));
  const entered = stored === undefined ? seen : { ...seen, ...signedBefore(stored) };
  if (!isCurrent) return [{ entity: 'session', row: end(entered, inferred('room_replaced', atMs)) }];
  const { isSuperseded, changes } = supersede(entities, entered, sighting);
  const row = isSuperseded ? end(entered, inferred('DUPLICATE_IDENTITY', atMs)) : entered;
  return [...changes, { entity: 'session', row }];
};

/** LiveKit's fact that one participant is gone. */
type Departure = Extract<LivekitFact, { readonly type: 'participant_left' | 'participant_connection_aborted' }>;

/** Whoever was removed stays out, also where media were not up yet: of them too LiveKit says `connection_aborted`. */
const departureReason = ({ type, participant: { disconnectReason = 'UNKNOWN_REASON' } }: Departure): string =>
  type === 'participant_left' || disconnectReason === removedReason ? disconnectReason : 'CONNECTION_ABORTED';

const leave = (entities: PresenceEntities, departure: Departure, atMs: number): PresenceChange[] => {
  const { room, participant } = departure;
  const stored = entities.session(room.name, room.sid, participant.sid);
  if (stored !== undefined && !stored.isLive)
    return stored.isEndTold
      ? []
      : [{ entity: 'session', row: { ...stored, endReason: departureReason(departure), isEndTold: true } }];
  const left = stored ?? sessionOf(room, participant, atMs);
  // If its own arrival is yet to come, whom it replaced is learnt here: that arrival will change nothing.
  return [
    ...supersede(entities, left, { atMs, list: null }).changes,
    { entity: 'session', row: end(left, { reason: departureReason(departure), atMs, isTold: true }) },
  ];
};

/**
 * The life that a list names. LiveKit never uses a sid again, and its clock may be set back: where all that is known of
 * the room is older than the list, this life is the present one, though another was created later, or this one was
 * over.
 */
const listLife = (entities: PresenceEntities, room: LivekitRoom, list: ListTimes): LifeEntry => {
  const { listedAtMs } = list;
  const known = entities.lives.get(room.name);
  if (known === undefined || (known.isLive && known.roomSid === room.sid)) return enterLife(entities, room, listedAtMs);
  const live = [...entities.sessionsOf(room.name)].filter(({ isLive }) => isLive);
  const isNewer = [known, ...live].every((each) => !isHeardSince(each, list));
  return (isNewer ? beginLife : enterLife)(entities, room, listedAtMs);
};

/** What a list says: who is listed is there; who is known, older than the list and not listed, is not. */
const observe = (entities: PresenceEntities, observed: LivekitObserved, list: ListTimes): PresenceChange[] => {
  const { room } = observed;
  const { listedAtMs } = list;
  const sessions = [...entities.sessionsOf(observed.roomName)];
  const isOlder = (each: Pick<Session, 'lastFactAtMs'>): boolean => !isHeardSince(each, list);
  if (room === null) {
    const life = entities.lives.get(observed.roomName);
    const isGone = life?.isLive && isOlder(life) && sessions.every((session) => !session.isLive || isOlder(session));
    return [
      ...(isGone ? [{ entity: 'life' as const, row: { ...life, isLive: false, lastFactAtMs: listedAtMs } }] : []),
      ...endAll(sessions, isOlder, inferred('not_listed', listedAtMs)),
    ];
  }
  const { isCurrent, changes } = listLife(entities, room, list);
  const entered = observed.participants.flatMap((participant) =>
    enter(entities, room, participant, { atMs: listedAtMs, isCurrent, list }),
  );
  const settled = new Set(observed.participants.map(({ sid }) => sid));
  for (const { entity, row } of entered) if (entity === 'session') settled.add(row.participantSid);
  const gone = endAll(
    sessions,
    (session) => session.roomSid === room.sid && !settled.has(session.participantSid) && isOlder(session),
    inferred('not_listed', listedAtMs),
  );
  return [...changes, ...gone, ...entered];
};

/** Who left counts for a moment still, and who was removed does not: no clock that was ahead prolongs either. */
const endedBy = (nowMs: number, change: PresenceChange): PresenceChange =>
  change.entity === 'session' && change.row.endedAtMs !== null && change.row.endedAtMs > nowMs
    ? { entity: 'session', row: { ...change.row, endedAtMs: nowMs } }
    : change;

/**
 * Folds one LiveKit fact. `receivedAtMs` is the record's time: no list was asked for later than that, whatever the
 * clock showed that dated it. `nowMs` is when it is folded, which may be long after it was received. Facts may arrive
 * shuffled, repeated or not at all: a left or aborted sid stays ended whatever comes later, and a room's older life
 * never ends a newer one. Which is newer LiveKit's own times say, but for a list: it knows better than all that was
 * received before it was asked for.
 */
export const evolvePresence = (
  entities: PresenceEntities,
  fact: LivekitFact,
  receivedAtMs: number,
  nowMs = receivedAtMs,
): PresenceChange[] => changesBy(entities, fact, { receivedAtMs, nowMs }).map((change) => endedBy(nowMs, change));

interface FoldTimes {
  readonly receivedAtMs: number;
  readonly nowMs: number;
}

const changesBy = (
  entities: PresenceEntities,
  fact: LivekitFact,
  { receivedAtMs, nowMs }: FoldTimes,
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
        ...enter(entities, fact.room, fact.participant, { atMs: receivedAtMs, isCurrent, list: null }),
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
      return observe(entities, fact.observed, {
        listedAtMs: Math.min(fact.observed.listedAtMs, receivedAtMs),
        nowMs,
      });
  }
};
