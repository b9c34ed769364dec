-- Ids are opaque and compared byte for byte; one domain says so for every column and every parameter.
create domain opaque_id as text collate "C";

-- Facts that fold from room events. Every row carries the fact that last changed it: its provenance and its version.
-- No foreign keys point here: these tables can be rebuilt from the log.
create table rooms (
  room_id opaque_id primary key,
  state text not null default 'unknown' check (state in ('unknown', 'open', 'closed')),
  name text,
  access text not null default 'members',
  default_role text not null default 'listener',
  opens_at timestamptz,
  closes_at timestamptz,
  max_participants int,
  device_policy jsonb not null default '{"mode": "multi"}',
  settings jsonb not null default '{}',
  is_locked boolean not null default false,
  event_id text, topic text, "partition" int, "offset" bigint, fact_at timestamptz, sequence numeric(39)
);

create table members (
  room_id opaque_id,
  user_id opaque_id,
  role text,
  display_name text,
  permissions jsonb,
  is_removed boolean not null,
  event_id text not null, topic text not null, "partition" int not null, "offset" bigint not null, fact_at timestamptz not null, sequence numeric(39),
  primary key (room_id, user_id)
);

create table bans (
  room_id opaque_id,
  user_id opaque_id,
  privilege text,
  until timestamptz,
  is_lifted boolean not null,
  event_id text not null, topic text not null, "partition" int not null, "offset" bigint not null, fact_at timestamptz not null, sequence numeric(39),
  primary key (room_id, user_id, privilege)
);

-- A row without provenance is only something to lock: nothing is known about that user.
create table users (
  user_id opaque_id primary key,
  is_disabled boolean not null default false,
  event_id text, topic text, "partition" int, "offset" bigint, fact_at timestamptz, sequence numeric(39)
);

create table ended_logins (
  user_id opaque_id,
  login_id text,
  event_id text not null, topic text not null, "partition" int not null, "offset" bigint not null, fact_at timestamptz not null, sequence numeric(39),
  primary key (user_id, login_id)
);

-- Doubt left by facts that could not be read. Ids that do not apply are ''.
create table suspects (
  scope text check (scope in ('room', 'header', 'member', 'user')),
  room_id opaque_id,
  user_id opaque_id,
  is_healed boolean not null,
  event_id text not null, topic text not null, "partition" int not null, "offset" bigint not null, fact_at timestamptz not null, sequence numeric(39),
  primary key (scope, room_id, user_id)
);

-- Facts from LiveKit.
create table room_lives (
  room_id opaque_id primary key,
  room_sid text not null,
  created_at timestamptz not null,
  is_live boolean not null
);

create table sessions (
  room_id opaque_id,
  room_sid text,
  participant_sid text,
  identity opaque_id not null,
  user_id opaque_id,
  device_id text,
  login_id text,
  trace text,
  kind text not null,
  is_hidden boolean not null,
  is_live boolean not null,
  joined_at timestamptz not null,
  version bigint not null,
  end_reason text,
  ended_at timestamptz,
  last_fact_at timestamptz not null,
  primary key (room_id, room_sid, participant_sid)
);
create index sessions_of_identity on sessions (room_id, identity);
create index sessions_live_of_user on sessions (user_id, room_id) where is_live;
create index sessions_of_user on sessions (room_id, user_id, ended_at);
create index sessions_live_in_room on sessions (room_id) where is_live;

-- Where each partition stands. This, not Kafka's group offset, is the truth.
create table log_positions (
  projection text,
  topic text,
  "partition" int,
  next_offset bigint not null,
  partition_count int not null,
  primary key (projection, topic, "partition")
);

-- Identities of applied facts: the first 16 bytes of SHA-256 over source, NUL, id.
create table applied_facts (
  topic text,
  "partition" int,
  fact_key bytea,
  recorded_at timestamptz not null,
  primary key (topic, "partition", fact_key)
);
create index applied_facts_by_age on applied_facts (recorded_at);

create table dead_letters (
  topic text,
  "partition" int,
  "offset" bigint,
  recorded_at timestamptz not null,
  key bytea,
  value bytea,
  headers jsonb not null,
  reason text not null,
  message text not null,
  status text not null default 'open' check (status in ('open', 'discarded', 'retried')),
  is_relayed boolean not null default false,
  primary key (topic, "partition", "offset")
);
create index dead_letters_to_relay on dead_letters (topic, "partition", "offset") where not is_relayed;

-- Questions to the enforcement: does this session agree with the facts? Identity '' asks about the whole room.
create table marks (
  room_id opaque_id,
  identity opaque_id,
  generation bigint not null default 1,
  cause text not null,
  caused_at timestamptz not null,
  trace text,
  due_at timestamptz not null,
  locked_until timestamptz,
  attempts int not null default 0,
  primary key (room_id, identity)
);
create index marks_due on marks (due_at);

-- Orders that concern one participant sid and expire.
create table edges (
  edge_id bigint generated always as identity primary key,
  kind text not null check (kind in ('kick', 'mute')),
  room_id opaque_id not null,
  identity opaque_id not null,
  participant_sid text not null,
  track_sid text,
  requested_by opaque_id not null,
  trace text,
  expires_at timestamptz not null,
  locked_until timestamptz
);

create table outbox (
  outbox_id bigint generated always as identity primary key,
  room_id opaque_id not null,
  event_id text not null,
  type text not null,
  occurred_at timestamptz not null,
  data jsonb not null,
  trace text
);

-- Seats: the api's own. A lease is a seat that a token holds until it is used or expires.
create table seat_leases (
  room_id opaque_id,
  identity opaque_id,
  device_id text,
  user_id opaque_id not null,
  expires_at timestamptz not null,
  primary key (room_id, identity, user_id)
);

-- Who does what only one process may do.
create table duties (
  name text primary key,
  holder text not null,
  held_until timestamptz not null
);
