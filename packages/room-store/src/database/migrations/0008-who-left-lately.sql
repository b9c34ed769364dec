-- Who left a moment ago holds a seat: found by time, in rooms that have seen many.
create index sessions_ended on sessions (room_id, ended_at) where not is_live;
