export * from './room-service.ts';
export * from './settings.ts';
