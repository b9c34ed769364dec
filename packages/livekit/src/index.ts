export * from './hs256-signer.ts';
export * from './room-service.ts';
export * from './settings.ts';
