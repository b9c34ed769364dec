export { type FaultProxy, startFaultProxy } from './fault-proxy.ts';
export { type Kafka, type KafkaOptions, startKafka, type TopicToCreate } from './kafka.ts';
export { type Livekit, type LivekitOptions, type LivekitPorts, startLivekit } from './livekit.ts';
export { type Part, PartAbsent, type Report } from './part.ts';
export { freePort } from './ports.ts';
export { createDatabase, type Postgres, type PostgresOptions, startPostgres } from './postgres.ts';
