-- The ended sessions that are old enough to go, without the others of a week.
create index sessions_ended_by_age on sessions (last_fact_at) where not is_live;
