export * from './authorise.ts';
export * from './origin.ts';
export * from './permissions.ts';
export * from './presence.ts';
export * from './room.ts';
export * from './signed-attributes.ts';
export * from './suspicion.ts';
export * from './working-set.ts';
