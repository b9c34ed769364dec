-- What the indexes of the migration before serve, too. By itself, since it keeps readers waiting and building an index does not.
drop index sessions_of_identity, sessions_live_in_room;
