-- The rooms that are live now, without all that ever were: a sweep asks for them every few seconds.
create index room_lives_live on room_lives (room_id) where is_live;
