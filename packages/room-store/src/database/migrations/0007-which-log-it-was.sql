-- The last record that was applied. Where another record time stands at its offset, the log is another one. Null until a
-- record is applied; a worker from before moves next_offset without them.
alter table log_positions add column last_offset bigint, add column last_recorded_at timestamptz;
