import { z } from 'zod';

interface Field {
  readonly name: string;
  readonly description: string;
  readonly fallback: string;
}

/** What the walk over a settings schema needs of zod's inner definitions. */
type Schema = z.core.$ZodType;

const fallbackOf = (schema: Schema): string => {
  const { def } = schema._zod;
  if (def.type === 'default' || def.type === 'prefault') return String((def as z.core.$ZodDefaultDef).defaultValue);
  return def.type === 'optional' ? 'unset' : 'required';
};

/** The variables that a schema reads: objects, in whatever intersections and transforms they stand. */
export const settingsOf = (schema: Schema): Field[] => {
  const { def } = schema._zod;
  switch (def.type) {
    case 'intersection': {
      const { left, right } = def as z.core.$ZodIntersectionDef;
      return [...settingsOf(left), ...settingsOf(right)];
    }
    case 'pipe':
      return settingsOf((def as z.core.$ZodPipeDef).in);
    case 'object':
      return Object.entries((def as z.core.$ZodObjectDef).shape).map(([name, field]) => ({
        name,
        description: z.globalRegistry.get(field)?.description ?? '',
        fallback: fallbackOf(field),
      }));
    default:
      return [];
  }
};

const helpText = (service: string, summary: string, schema: Schema): string => {
  const fields = settingsOf(schema).filter(({ description }) => description !== '');
  const width = Math.max(...fields.map(({ name }) => name.length));
  const lines = fields.map(
    ({ name, description, fallback }) => `  ${name.padEnd(width)}  ${description} [${fallback}]`,
  );
  return `${service}: ${summary}\n\nSettings, from the environment:\n${lines.join('\n')}\n`;
};

/** All faults of an environment, one a line; values are not quoted, as they may be secrets. */
export const describeFaults = (error: z.ZodError): string =>
  [...new Set(error.issues.map(({ path, message }) => `  ${path.join('.') || 'settings'}: ${plain(message)}`))].join(
    '\n',
  );

const plain = (message: string): string => (message.endsWith('received undefined') ? 'must be set' : message);

/**
 * A service's settings from the environment. Ends the process: with the list of settings for `--help`, and with all
 * faults named at once where one is missing or wrong. Empty variables, and blank ones, count as unset.
 */
export const readSettings = <T extends z.ZodType>(service: string, summary: string, schema: T): z.output<T> => {
  if (process.argv.includes('--help')) {
    process.stdout.write(helpText(service, summary, schema));
    process.exit(0);
  }
  const environment = Object.fromEntries(Object.entries(process.env).filter(([, value]) => value?.trim() !== ''));
  const settings = schema.safeParse(environment);
  if (settings.success) return settings.data;
  process.stderr.write(
    `${service} cannot start, its settings are wrong:\n${describeFaults(settings.error)}\nSee --help for all settings.\n`,
  );
  process.exit(2);
};
