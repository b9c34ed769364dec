-- A list overrules LiveKit's times where it is newer than what is known. Of what a worker from before writes, too, that is
-- known as of now, and an end is taken for inferred.
alter table room_lives add column last_fact_at timestamptz not null default now();
alter table sessions add column is_end_told boolean not null default false;
