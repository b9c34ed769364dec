export { type Decoded, decodeRecord } from './decode.ts';
export { createWorkerMetrics } from './metrics.ts';
export { applyDecoded, createProjector } from './project.ts';
