-- Of somebody who has come and gone often, the last to join, and those who are inside, without the others.
create index sessions_by_joining on sessions (room_id, identity, room_sid, joined_at);
create index sessions_live_of_identity on sessions (room_id, identity) where is_live;
