-- What is told to people who lose a right or a session.
alter table bans add column reason text;
alter table edges add column reason text;

-- Rooms that are live and end by a schedule are asked about, so that their ends are waited for.
insert into marks (room_id, identity, cause, caused_at, due_at)
  select room_id, '', 'migrated', clock_timestamp(), clock_timestamp()
    from room_lives join rooms using (room_id) where is_live and closes_at is not null
  on conflict do nothing;
