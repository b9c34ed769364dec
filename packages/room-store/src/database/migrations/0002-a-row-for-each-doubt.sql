-- Each doubt has a row of its own, named by the dead letter that raised it, so that giving one letter up heals no other.
delete from suspects where is_healed;
alter table suspects drop constraint suspects_pkey, drop constraint suspects_scope_check;
alter table suspects
  add column detail text not null default '',
  add column cause_topic text, add column cause_partition int, add column cause_offset bigint;
update suspects set cause_topic = topic, cause_partition = "partition", cause_offset = "offset";
alter table suspects
  add primary key (cause_topic, cause_partition, cause_offset, scope),
  add check (scope in ('room', 'header', 'member', 'ban', 'user', 'login'));
create index suspects_open on suspects (room_id, user_id) where not is_healed;

-- What an operator looks for (null where it could not be read, and in letters from before), and what became of it: the
-- log record that settled it. A letter that was retried is the provenance of the rows which it changed.
alter table dead_letters
  add column type text,
  add column subject opaque_id,
  add column settled_topic text, add column settled_partition int, add column settled_offset bigint,
  add column settled_at timestamptz;
create index dead_letters_open on dead_letters (topic, "partition", "offset") where status = 'open';
