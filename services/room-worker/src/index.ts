export { WorkerSettings } from './config.ts';
export { startWorker, type Worker } from './worker.ts';
