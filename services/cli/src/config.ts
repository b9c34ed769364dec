import { LogSettings } from '@realtime-service/event-log';
import { DatabaseSettings } from '@realtime-service/room-store';

/** The settings of every command: the same variables as the services'. */
export const CliSettings = DatabaseSettings.and(LogSettings);
export type CliSettings = DatabaseSettings & LogSettings;
