import type { Command } from './command.ts';
import { listDeadLetters } from './dead-letters.ts';
import { rebuildCommand } from './rebuild.ts';

/** Every command, in the order of help and reference. */
export const commands: readonly Command[] = [rebuildCommand, listDeadLetters];
