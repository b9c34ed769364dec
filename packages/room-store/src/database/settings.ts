import { z } from 'zod';

const oneHost = 'must name one host, by which the primary of the day is found';

/** As libpq takes them, and the driver does not. */
const hasSeveralHosts = (text: unknown): boolean =>
  /^[^:]*:\/\/(?:[^/?#]*@)?[^/?#@]*,[^/?#@]*(?:[/?#]|$)/.test(String(text));

const postgresUrl = z
  .url({
    protocol: /^postgres(?:ql)?$/,
    error: ({ input }) => {
      if (input === undefined) return 'must be set';
      return hasSeveralHosts(input) ? oneHost : 'must be a postgres:// URL';
    },
  })
  .refine((text) => !(URL.canParse(text) && hasSeveralHosts(text)), oneHost);

/** The settings by which both services know the database; a service combines it with its own by `.and()`. */
export const DatabaseSettings = z
  .object({
    DATABASE_URL: postgresUrl.describe(
      'PostgreSQL; TLS by its parameters (sslmode). Behind a pooler in transaction mode its DateStyle must be ISO and its array_nulls on, as they are by default',
    ),
    DATABASE_DIRECT_URL: postgresUrl
      .optional()
      .describe(
        'PostgreSQL past any pooler, for migrations, rebuilds and LISTEN; DATABASE_URL by default. Through a pooler in transaction mode all works but LISTEN: a removal then waits up to 250 ms more',
      ),
    DATABASE_MAX_CONNECTIONS: z.coerce
      .number()
      .int()
      .min(2)
      .max(200)
      .default(10)
      .describe('Size of the connection pool; a room-worker takes 4 at least'),
  })
  .transform(({ DATABASE_URL, DATABASE_DIRECT_URL, DATABASE_MAX_CONNECTIONS }) => ({
    database: {
      url: DATABASE_URL,
      directUrl: DATABASE_DIRECT_URL ?? DATABASE_URL,
      maxConnections: DATABASE_MAX_CONNECTIONS,
    },
  }));
export type DatabaseSettings = z.infer<typeof DatabaseSettings>;
