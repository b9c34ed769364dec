export { type Api, startApi } from './api.ts';
export { ApiSettings } from './config.ts';
