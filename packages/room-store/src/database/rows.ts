import { firstInstantMs, lastInstantMs, positionName } from '@realtime-service/contracts';
import type {
  Ban,
  EndedLogin,
  Member,
  Origin,
  RoomHeader,
  RoomLife,
  Session,
  Suspect,
  User,
  Version,
} from '@realtime-service/room-model';
import { isSamePlace, versionAfter } from '@realtime-service/room-model';
import type { Client } from './database.ts';
import { send } from './statement.ts';

/** Tables as columns: one description drives writing and reading a row. */

type Row = Record<string, unknown>;

interface Column<T> {
  readonly name: string;
  readonly type: string;
  readonly value: (row: T) => unknown;
}

interface TableDescription<T> {
  readonly name: string;
  readonly key: readonly string[];
  readonly columns: readonly Column<T>[];
  readonly read: (row: Row) => T;
}

export interface Table<T> extends TableDescription<T> {
  readonly upsertSql: string;
  /** By names: a statement that is kept prepared fails once a newer release has added a column to `*`. */
  readonly selectSql: string;
}

const table = <T>(description: TableDescription<T>): Table<T> => {
  const { name, key, columns } = description;
  const names = columns.map((each) => each.name);
  const changed = names.filter((each) => !key.includes(each)).map((each) => `${each} = excluded.${each}`);
  const parameters = columns.map(({ type }, at) => `$${at + 1}::${type}[]`);
  const upsertSql = `insert into ${name} (${names.join(', ')}) select * from unnest(${parameters.join(', ')})
    on conflict (${key.join(', ')}) do update set ${changed.join(', ')}`;
  return { ...description, upsertSql, selectSql: `select ${names.join(', ')} from ${name}` };
};

/** What no clock shows is kept at the edge of what can be written. */
const instant = (ms: number | null): Date | null =>
  ms === null ? null : new Date(Math.min(Math.max(ms, firstInstantMs), lastInstantMs));
const ms = (value: unknown): number => (value as Date).getTime();
const msOrNull = (value: unknown): number | null => (value === null ? null : ms(value));
const column = <T>(name: string, type: string, value: (row: T) => unknown): Column<T> => ({ name, type, value });

const originColumns: readonly Column<{ readonly origin: Origin | null }>[] = [
  column('event_id', 'text', ({ origin }) => origin?.eventId ?? null),
  column('topic', 'text', ({ origin }) => origin?.topic ?? null),
  column('"partition"', 'int', ({ origin }) => origin?.partition ?? null),
  column('"offset"', 'bigint', ({ origin }) => origin?.offset ?? null),
  column('fact_at', 'timestamptz', ({ origin }) => instant(origin?.timeMs ?? null)),
  column('sequence', 'numeric', ({ origin }) => origin?.sequence?.toString() ?? null),
];

const readOrigin = (row: Row): Origin => ({
  eventId: row.event_id as string,
  topic: row.topic as string,
  partition: row.partition as number,
  offset: BigInt(row.offset as string),
  timeMs: ms(row.fact_at),
  sequence: row.sequence === null ? null : BigInt(row.sequence as string),
});

/** Numbers as text: JSON's cannot hold them all. */
type StoredVersion = Omit<Version, 'offset' | 'sequence'> & {
  readonly offset: string;
  readonly sequence: string | null;
};

const toStoredVersion = ({ topic, partition, offset, sequence }: Version): StoredVersion => ({
  topic,
  partition,
  offset: offset.toString(),
  sequence: sequence?.toString() ?? null,
});

const readVersion = ({ topic, partition, offset, sequence }: StoredVersion): Version => ({
  topic,
  partition,
  offset: BigInt(offset),
  sequence: sequence === null ? null : BigInt(sequence),
});

/** With the place of the row's last fact: a release that does not know this column writes the row and leaves it. */
type StoredDecided = StoredVersion & { readonly rowAt: string };

/** Null where it is the row's own version, as in most rows, and in those of releases that did not tell them apart. */
const decidedColumn: Column<Pick<RoomHeader, 'decided' | 'origin'>> = column(
  'decided',
  'jsonb',
  ({ decided, origin }) =>
    decided === null || origin === null || (isSamePlace(decided, origin) && decided.sequence === origin.sequence)
      ? null
      : JSON.stringify({ ...toStoredVersion(decided), rowAt: positionName(origin) } satisfies StoredDecided),
);

const readVersions = (row: Row): { readonly decided: Version; readonly origin: Origin } => {
  const origin = readOrigin(row);
  const stored = row.decided as StoredDecided | null;
  const isKept = stored !== null && stored.rowAt === positionName(origin);
  return { decided: isKept ? readVersion(stored) : versionAfter(origin, null), origin };
};

export const roomTable = table<RoomHeader>({
  name: 'rooms',
  key: ['room_id'],
  columns: [
    column('room_id', 'opaque_id', (row) => row.roomId),
    column('state', 'text', (row) => row.state),
    column('name', 'text', (row) => row.name),
    column('access', 'text', (row) => row.access),
    column('default_role', 'text', (row) => row.defaultRole),
    column('opens_at', 'timestamptz', (row) => instant(row.opensAtMs)),
    column('closes_at', 'timestamptz', (row) => instant(row.closesAtMs)),
    column('max_participants', 'int', (row) => row.maxParticipants),
    column('device_policy', 'jsonb', (row) => JSON.stringify(row.devicePolicy)),
    column('settings', 'jsonb', (row) => JSON.stringify(row.settings)),
    column('is_locked', 'boolean', (row) => row.isLocked),
    column('closing_reason', 'text', (row) => row.closingReason),
    decidedColumn,
    column('members_told', 'jsonb', ({ membersTold }) => membersTold && JSON.stringify(toStoredVersion(membersTold))),
    ...originColumns,
  ],
  read: (row) => ({
    roomId: row.room_id as string,
    state: row.state as RoomHeader['state'],
    name: row.name as string | null,
    access: row.access as RoomHeader['access'],
    defaultRole: row.default_role as RoomHeader['defaultRole'],
    opensAtMs: msOrNull(row.opens_at),
    closesAtMs: msOrNull(row.closes_at),
    maxParticipants: row.max_participants as number | null,
    devicePolicy: row.device_policy as RoomHeader['devicePolicy'],
    settings: row.settings as RoomHeader['settings'],
    isLocked: row.is_locked as boolean,
    closingReason: row.closing_reason as string | null,
    membersTold: row.members_told === null ? null : readVersion(row.members_told as StoredVersion),
    ...(row.event_id === null ? { decided: null, origin: null } : readVersions(row)),
  }),
});

export const memberTable = table<Member>({
  name: 'members',
  key: ['room_id', 'user_id'],
  columns: [
    column('room_id', 'opaque_id', (row) => row.roomId),
    column('user_id', 'opaque_id', (row) => row.userId),
    column('role', 'text', (row) => row.role),
    column('display_name', 'text', (row) => row.displayName),
    column('permissions', 'jsonb', (row) => (row.permissions === null ? null : JSON.stringify(row.permissions))),
    column('is_removed', 'boolean', (row) => row.isRemoved),
    column('removal_reason', 'text', (row) => row.removalReason),
    decidedColumn,
    ...originColumns,
  ],
  read: (row) => ({
    roomId: row.room_id as string,
    userId: row.user_id as string,
    role: row.role as Member['role'],
    displayName: row.display_name as string | null,
    permissions: row.permissions as Member['permissions'],
    isRemoved: row.is_removed as boolean,
    removalReason: row.removal_reason as string | null,
    ...readVersions(row),
  }),
});

export const banTable = table<Ban>({
  name: 'bans',
  key: ['room_id', 'user_id', 'privilege'],
  columns: [
    column('room_id', 'opaque_id', (row) => row.roomId),
    column('user_id', 'opaque_id', (row) => row.userId),
    column('privilege', 'text', (row) => row.privilege),
    column('until', 'timestamptz', (row) => instant(row.untilMs)),
    column('is_lifted', 'boolean', (row) => row.isLifted),
    column('reason', 'text', (row) => row.reason),
    ...originColumns,
  ],
  read: (row) => ({
    roomId: row.room_id as string,
    userId: row.user_id as string,
    privilege: row.privilege as Ban['privilege'],
    untilMs: msOrNull(row.until),
    isLifted: row.is_lifted as boolean,
    reason: row.reason as string | null,
    origin: readOrigin(row),
  }),
});

export const userTable = table<User>({
  name: 'users',
  key: ['user_id'],
  columns: [
    column('user_id', 'opaque_id', (row) => row.userId),
    column('is_disabled', 'boolean', (row) => row.isDisabled),
    ...originColumns,
  ],
  read: (row) => ({
    userId: row.user_id as string,
    isDisabled: row.is_disabled as boolean,
    origin: readOrigin(row),
  }),
});

export const endedLoginTable = table<EndedLogin>({
  name: 'ended_logins',
  key: ['user_id', 'login_id'],
  columns: [
    column('user_id', 'opaque_id', (row) => row.userId),
    column('login_id', 'text', (row) => row.loginId),
    ...originColumns,
  ],
  read: (row) => ({ userId: row.user_id as string, loginId: row.login_id as string, origin: readOrigin(row) }),
});

export const suspectTable = table<Suspect>({
  name: 'suspects',
  key: ['cause_topic', 'cause_partition', 'cause_offset', 'scope'],
  columns: [
    column('cause_topic', 'text', ({ cause }) => cause.topic),
    column('cause_partition', 'int', ({ cause }) => cause.partition),
    column('cause_offset', 'bigint', ({ cause }) => cause.offset),
    column('scope', 'text', (row) => row.scope),
    column('room_id', 'opaque_id', (row) => row.roomId),
    column('user_id', 'opaque_id', (row) => row.userId),
    column('detail', 'text', (row) => row.detail),
    column('is_healed', 'boolean', (row) => row.isHealed),
    ...originColumns,
  ],
  read: (row) => ({
    scope: row.scope as Suspect['scope'],
    roomId: row.room_id as string,
    userId: row.user_id as string,
    detail: row.detail as string,
    cause: {
      topic: row.cause_topic as string,
      partition: row.cause_partition as number,
      offset: BigInt(row.cause_offset as string),
    },
    isHealed: row.is_healed as boolean,
    origin: readOrigin(row),
  }),
});

export const lifeTable = table<RoomLife>({
  name: 'room_lives',
  key: ['room_id'],
  columns: [
    column('room_id', 'opaque_id', (row) => row.roomId),
    column('room_sid', 'text', (row) => row.roomSid),
    column('created_at', 'timestamptz', (row) => instant(row.createdAtMs)),
    column('is_live', 'boolean', (row) => row.isLive),
    column('last_fact_at', 'timestamptz', (row) => instant(row.lastFactAtMs)),
  ],
  read: (row) => ({
    roomId: row.room_id as string,
    roomSid: row.room_sid as string,
    createdAtMs: ms(row.created_at),
    isLive: row.is_live as boolean,
    lastFactAtMs: ms(row.last_fact_at),
  }),
});

export const sessionTable = table<Session>({
  name: 'sessions',
  key: ['room_id', 'room_sid', 'participant_sid'],
  columns: [
    column('room_id', 'opaque_id', (row) => row.roomId),
    column('room_sid', 'text', (row) => row.roomSid),
    column('participant_sid', 'text', (row) => row.participantSid),
    column('identity', 'opaque_id', (row) => row.identity),
    column('user_id', 'opaque_id', (row) => row.userId),
    column('device_id', 'text', (row) => row.deviceId),
    column('login_id', 'text', (row) => row.loginId),
    column('trace', 'text', (row) => row.trace),
    column('kind', 'text', (row) => row.kind),
    column('is_hidden', 'boolean', (row) => row.isHidden),
    column('is_live', 'boolean', (row) => row.isLive),
    column('joined_at', 'timestamptz', (row) => instant(row.joinedAtMs)),
    column('version', 'bigint', (row) => row.version),
    column('end_reason', 'text', (row) => row.endReason),
    column('ended_at', 'timestamptz', (row) => instant(row.endedAtMs)),
    column('is_end_told', 'boolean', (row) => row.isEndTold),
    column('last_fact_at', 'timestamptz', (row) => instant(row.lastFactAtMs)),
  ],
  read: (row) => ({
    roomId: row.room_id as string,
    roomSid: row.room_sid as string,
    participantSid: row.participant_sid as string,
    identity: row.identity as string,
    userId: row.user_id as string | null,
    deviceId: row.device_id as string | null,
    loginId: row.login_id as string | null,
    trace: row.trace as string | null,
    kind: row.kind as Session['kind'],
    isHidden: row.is_hidden as boolean,
    isLive: row.is_live as boolean,
    joinedAtMs: ms(row.joined_at),
    version: Number(row.version),
    endReason: row.end_reason as string | null,
    endedAtMs: msOrNull(row.ended_at),
    isEndTold: row.is_end_told as boolean,
    lastFactAtMs: ms(row.last_fact_at),
  }),
});

/** The sessions (`s`) of which `isSeen` holds. */
export const isSeenSql = `s.kind = 'STANDARD' and not s.is_hidden`;

/**
 * Writes whole rows, one per key. No version guard of its own: the rows were folded from what was read under the
 * locks that `applyChunk` holds, so what they replace is what they were compared with.
 */
export const upsert = async <T>(
  client: Client,
  { upsertSql, columns }: Table<T>,
  rows: readonly T[],
): Promise<void> => {
  if (rows.length > 0)
    await send(
      client,
      upsertSql,
      columns.map(({ value }) => rows.map(value)),
    );
};

/** Reads the rows of a table that `where` selects. */
export const load = async <T>(
  client: Client,
  { selectSql, read }: Table<T>,
  where: string,
  values: unknown[],
): Promise<T[]> => {
  const { rows } = await send(client, `${selectSql} ${where}`, values);
  return rows.map(read);
};
