import type { WriteLog } from '@realtime-service/event-log';
import { scrub } from '@realtime-service/telemetry';
import type { Terminal } from './command.ts';

/** What is tried again fails in the same ways again: each is told once. */
export const tellWarnings = (tell: Terminal['tell']): WriteLog => {
  const told = new Set<string>();
  return (level, message, { error }) => {
    // The driver tells what a broker refuses as text.
    const why = error instanceof Error ? error.message : error;
    const text = scrub(`${message}${why === undefined ? '' : `: ${why}`}\n`);
    if ((level !== 'warn' && level !== 'error') || told.has(text)) return;
    told.add(text);
    tell(text);
  };
};
