export { withDeadline } from './deadline.ts';
export { createLogger, type Logger } from './logger.ts';
export { createMetrics, type Metrics } from './metrics.ts';
export { createOpsServer, type DependencyCheck } from './ops-server.ts';
export { readSettings, settingLines, settingsOf } from './read-settings.ts';
export { measureRoutes, routeOf, traceRoutes } from './routes.ts';
export { runService } from './run-service.ts';
export { scrub, scrubLines } from './scrub.ts';
export { ServiceSettings } from './service-settings.ts';
export { shutdownTelemetry } from './shutdown.ts';
export {
  currentTraceparent,
  linkActiveSpan,
  linkTo,
  type TraceCarrier,
  withRemoteParent,
  withSpan,
} from './trace-context.ts';
