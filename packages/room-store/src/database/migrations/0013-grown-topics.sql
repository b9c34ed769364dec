-- Of a topic that was grown: partitions from before are applied up to where they ended then, before any of those below
-- whose `waits_below` they stand.
alter table log_positions add column drain_to bigint;
alter table log_positions add column waits_below int not null default 0;
