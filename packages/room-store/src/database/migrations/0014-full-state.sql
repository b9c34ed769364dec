-- Where the last full state of a room's members stands, and its version: an older fact brings in nobody whom it left out.
-- Null where there was none, or none since this column is there; `realtime rebuild` fills it from the log.
alter table rooms add column members_told jsonb;
