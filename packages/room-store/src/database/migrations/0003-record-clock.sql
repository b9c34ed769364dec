-- The newest record time of an applied fact. A repeat is told by it alone, so that the answer is the same whenever the
-- log is read and whatever was purged meanwhile.
alter table log_positions add column newest_recorded_at timestamptz not null default 'epoch';
update log_positions as position set newest_recorded_at = coalesce(
  (select max(recorded_at) from applied_facts as fact
    where fact.topic = position.topic and fact."partition" = position."partition"), 'epoch');
