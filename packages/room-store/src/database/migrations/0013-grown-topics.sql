-- With how many partitions a topic was applied before it was grown; null where it never was.
alter table log_positions add column grown_from int;
