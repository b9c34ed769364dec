-- A list overrules LiveKit's times where it is newer than what is known. Of rows that a worker from before adds, too, that is
-- known as of now, and an end is taken for inferred.
alter table room_lives add column last_fact_at timestamptz not null default now();
alter table sessions add column is_end_told boolean not null default false;
-- Workers from before keep statements prepared that read all columns, and each fails for good from now on: on new
-- connections they are prepared anew, and what was under way is tried again. A name in DATABASE_URL is ours as well as theirs.
select pg_terminate_backend(pid) from pg_stat_activity
  where datname = current_database() and pid <> pg_backend_pid() and pg_has_role(usesysid, 'usage')
    and application_name in ('room-worker', current_setting('application_name'));
