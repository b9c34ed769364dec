-- Records that the log did not take when they were to be appended: appended later, in this order.
create table kept_records (
  kept_id bigint generated always as identity primary key,
  topic text not null,
  key text not null,
  value bytea not null,
  headers jsonb not null,
  kept_at timestamptz not null default clock_timestamp()
);

-- A lease ends when its token is used: by a session of the same identity that joined after it was granted.
alter table seat_leases add column granted_at timestamptz not null default clock_timestamp();
