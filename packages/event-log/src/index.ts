export { recordBytes } from './appender.ts';
export { createEmbeddedLog } from './embedded/embedded-log.ts';
export { prepareEmbeddedLog } from './embedded/schema.ts';
export * from './event-log.ts';
export { partitionOf } from './partitioner.ts';
export { LogSettings, type OpenLogOptions, openEventLog } from './settings.ts';
