-- What is told to people who are removed, or whose room is closed.
alter table members add column removal_reason text;
alter table rooms add column closing_reason text;
