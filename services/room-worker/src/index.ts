export type { Clock } from './clock.ts';
export { type Decoded, decodeRecord } from './decode.ts';
export { startEnforcement } from './enforce.ts';
export { createLaneGate } from './lane-gate.ts';
export { toLivekitRecord } from './livekit-record.ts';
export { createWorkerMetrics } from './metrics.ts';
export { applyDecoded, asDeadLetter, createProjector } from './project.ts';
export { sweepOnce } from './sweep.ts';
export { noteReached, noticeRestore, noting } from './worker.ts';
