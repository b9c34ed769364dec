// Writes docs/reference/cli.md from the table of commands.
import { writePage } from '@realtime-service/telemetry/reference-page';
import { commands } from '../src/commands.ts';
import { referencePage } from '../src/help.ts';

await writePage(referencePage(commands), new URL('../../../docs/reference/cli.md', import.meta.url));
