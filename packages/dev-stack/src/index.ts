export { chromiumFlags, findChromium } from './chromium.ts';
export { type FaultProxy, startFaultProxy } from './fault-proxy.ts';
export {
  type GateProxy,
  type GateProxyName,
  type GateProxyOptions,
  gateProxyNames,
  startGateProxy,
} from './gate-proxies.ts';
export { startGateProxyServer } from './gate-proxy.ts';
export { type Issuer, type IssuerOptions, startIssuer } from './issuer.ts';
export { type Kafka, type KafkaOptions, startKafka, type TopicToCreate } from './kafka.ts';
export {
  type Keycloak,
  type KeycloakOptions,
  keycloakAdmin,
  keycloakToken,
  startKeycloak,
  type TokenRequest,
} from './keycloak.ts';
export { type Livekit, type LivekitOptions, type LivekitPorts, startLivekit } from './livekit.ts';
export { type Part, PartAbsent, type Report } from './part.ts';
export { type Pgbouncer, type PgbouncerOptions, startPgbouncer } from './pgbouncer.ts';
export { freePort } from './ports.ts';
export { createDatabase, type Postgres, type PostgresOptions, startPostgres } from './postgres.ts';
export { type Command, type ProcessSpec, runCommand, runDirectory, startProcess } from './process-part.ts';
export { type SignalClient, signalIn, signalOnlyMs } from './signal-client.ts';
export { until } from './until.ts';
export { startZipkin, type Zipkin, type ZipkinOptions } from './zipkin.ts';
