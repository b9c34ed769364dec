import { defineCommand } from './command.ts';

export const listDeadLetters = defineCommand({
  name: 'dead-letters list',
  summary: 'List records that could not be applied',
  positionals: '',
  options: {
    json: { type: 'boolean', description: 'One JSON object a line' },
  },
  examples: ['dead-letters list'],
  run: async (_, open) => {
    const { pool, terminal } = open();
    const { rows } = await pool.query<{ open: number }>(
      `select count(*)::int as open from dead_letters where status = 'open'`,
    );
    terminal.tell(`${rows[0]?.open ?? 0} open\n`);
    return 'done';
  },
});
