-- What LiveKit is being asked to enforce, to be announced once it is known to do so: also by whoever claims the question
-- after a crash in between.
alter table marks add column announcement jsonb;
