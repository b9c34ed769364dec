export { createWorkerMetrics } from './metrics.ts';
export { createProjector } from './project.ts';
