-- Where the last full state of a room's members stands, and its version: an older fact brings in nobody whom it left out.
-- Null where there was none, or none since this column is there; `realtime rebuild` fills it from the log.
alter table rooms add column members_told jsonb;

-- Where the last fact stands that said more of a room or a member than a name, and its version. Null where that is the
-- row's own, and where none was kept: `realtime rebuild` fills it from the log. It counts beside the row's last fact that
-- it names: where that is another by now, a worker of the release before has written the row, and left this as it was.
alter table rooms add column decided jsonb;
alter table members add column decided jsonb;
