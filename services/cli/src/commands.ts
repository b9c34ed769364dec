import type { Command } from './command.ts';
import { confirmPartitionsCommand } from './confirm-partitions.ts';
import { listDeadLetters, showDeadLetter } from './dead-letters.ts';
import { rebuildCommand } from './rebuild.ts';
import { resetCommand } from './reset.ts';
import { discardDeadLetters, retryDeadLetters } from './settle-dead-letters.ts';
import { verifyCommand } from './verify.ts';

/** Every command, in the order of help and reference. */
export const commands: readonly Command[] = [
  rebuildCommand,
  verifyCommand,
  resetCommand,
  confirmPartitionsCommand,
  listDeadLetters,
  showDeadLetter,
  retryDeadLetters,
  discardDeadLetters,
];
