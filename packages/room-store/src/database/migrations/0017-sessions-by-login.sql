-- A logout may name the login alone: its sessions, without looking through everybody who is inside.
create index sessions_live_of_login on sessions (login_id) where is_live;
