export { type Api, startApi } from './api.ts';
export { ApiSettings } from './config.ts';
export { decideEntry } from './join/decide-join.ts';
export { ProblemError } from './problem.ts';
