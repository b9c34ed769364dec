-- For a while two migrations added these columns, 0014-full-state.sql and 0015-decided.sql: a database may have them.

-- Where the last full state of a room's members stands, and its version: an older fact brings in nobody whom it left out.
-- Null where there was none, or none since this column is there; `realtime rebuild` fills it from the log.
alter table rooms add column if not exists members_told jsonb;

-- Where the last fact stands that said more of a room or a member than a name, and its version. Null where that is the
-- row's own, and where none was kept: `realtime rebuild` fills it from the log. It counts beside the row's last fact that
-- it names: where that is another by now, a worker of the release before has written the row, and left this as it was.
alter table rooms add column if not exists decided jsonb;
alter table members add column if not exists decided jsonb;

-- As in migration 0011, for workers from before it: after that one they may have read these tables before this one.
select pg_terminate_backend(pid) from pg_stat_activity
  where datname = current_database() and pid <> pg_backend_pid() and pg_has_role(usesysid, 'usage')
    and application_name in ('room-worker', current_setting('application_name'));
