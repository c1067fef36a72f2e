"""Applies the roles and grants of `db.roles` to a database. Every function is idempotent."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from sqlalchemy import Connection, text

from db.roles import FUNCTIONS, GRANTS, MAY_RECORD_READS, RECORD_READ, TABLES, VIEWS, Grant, Role
from pipeline.model.errors import DeploymentError

# Roles belong to the cluster: the upgrade of another database may be creating them at the same time.
_CREATE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""


def roles_sql(owner: str) -> str:
    """Return the statements that create the roles, for an administrator to run.

    `owner` is the login that owns the database and upgrades the schema.
    """
    made = "".join(f"CREATE ROLE {role} NOLOGIN;\n" for role in Role)
    return made + f"GRANT {Role.MIGRATOR} TO {_quoted(owner)};\n"


def missing_roles(connection: Connection) -> list[Role]:
    """Return the roles that the cluster does not have."""
    known = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    return [role for role in Role if role.value not in known]


def create_roles(connection: Connection) -> list[Role]:
    """Create the roles that the cluster lacks, and return them.

    Raises: DeploymentError, saying what to run instead, where this user may not create roles.
    """
    missing = missing_roles(connection)
    if missing and not _may_create_roles(connection):
        raise DeploymentError(
            "this database user may not create roles; let an administrator run the output of "
            "`leukoflow db roles --print`, then run this command again",
            code="roles_missing",
        )
    for role in missing:
        connection.execute(text(_CREATE_ROLE.format(role=role)))
    return missing


def make_login(connection: Connection, name: str, role: Role, password: str) -> None:
    """Create or change the login `name` as a member of the role. Only a hash of the password is sent."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("logins are made through psycopg")
    known = text("SELECT 1 FROM pg_roles WHERE rolname = :name")
    verb = "ALTER" if connection.execute(known, {"name": name}).scalar() else "CREATE"
    hashed = driver.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    connection.exec_driver_sql(f"{verb} ROLE {_quoted(name)} LOGIN PASSWORD '{hashed}'")
    connection.exec_driver_sql(f"GRANT {role} TO {_quoted(name)}")


def transfer_ownership(connection: Connection) -> None:
    """Make the migrator the owner of all tables, views and functions; revoke all access of PUBLIC.

    Raises: DeploymentError, where this user owns neither the database nor its tables.
    """
    schema, database = _here(connection)
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    may_become = text("SELECT pg_has_role(current_user, :role, 'SET')")
    if not connection.execute(may_become, {"role": Role.MIGRATOR.value}).scalar_one():
        connection.execute(text(f"GRANT {Role.MIGRATOR} TO CURRENT_USER"))
    everyone = ", ".join(Role)
    _run(
        connection,
        [
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {database} TO {everyone}",
            f"REVOKE ALL ON SCHEMA {schema} FROM PUBLIC",
            f"GRANT USAGE ON SCHEMA {schema} TO {everyone}",
            f"GRANT CREATE ON SCHEMA {schema} TO {Role.MIGRATOR}",
        ],
    )
    if connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar():
        _run(connection, [f"REVOKE ALL ON FUNCTION {', '.join(_LARGE_OBJECTS)} FROM PUBLIC"])
    others = set(connection.execute(_OWNED_BY_OTHERS, {"role": Role.MIGRATOR.value}).scalars())
    _run(connection, (f"ALTER TABLE {name} OWNER TO {Role.MIGRATOR}" for name in TABLES if name in others))
    _run(connection, (f"ALTER VIEW {name} OWNER TO {Role.MIGRATOR}" for name in VIEWS if name in others))
    _run(connection, (f"ALTER FUNCTION {name} OWNER TO {Role.MIGRATOR}" for name in FUNCTIONS))


# Any login could fill the disk with large objects; only a superuser can revoke these functions.
_LARGE_OBJECTS = ("lo_create(oid)", "lo_creat(integer)", "lo_from_bytea(oid, bytea)")
_OWNED_BY_OTHERS = text("""
SELECT relname FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v')
  AND relowner <> (SELECT oid FROM pg_roles WHERE rolname = :role)
""")


def grant(connection: Connection) -> None:
    """Replace the privileges of every role by those of `db.roles`, in one transaction.

    Only the owner of the tables can do this. Every role has to exist.
    """
    groups = ", ".join(role for role in Role if role is not Role.MIGRATOR)
    # Revoking a privilege on a table revokes it on the columns too.
    _run(connection, [f"REVOKE ALL ON {', '.join((*TABLES, *VIEWS))} FROM PUBLIC, {groups}"])
    _run(connection, [f"REVOKE ALL ON FUNCTION {', '.join(FUNCTIONS)} FROM PUBLIC, {groups}"])
    _run(connection, (_statement(role, one) for role, grants in GRANTS.items() for one in grants))
    _run(connection, (f"GRANT EXECUTE ON FUNCTION {RECORD_READ} TO {role}" for role in MAY_RECORD_READS))


def switch_to_owner(connection: Connection) -> None:
    """Continue this transaction as the owner of the tables, so that new objects have the same owner."""
    owner = connection.execute(_OTHER_OWNER).scalar()
    if owner is not None:
        connection.execute(text(f"SET LOCAL ROLE {owner}"))


_OTHER_OWNER = text("""
SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class
WHERE oid = to_regclass('alembic_version')
  AND relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND pg_has_role(current_user, relowner, 'SET')
""")


def _statement(role: Role, one: Grant) -> str:
    columns = ", ".join(f'"{column}"' for column in one.columns)
    return f"GRANT {one.privilege}{f' ({columns})' if columns else ''} ON {one.table} TO {role}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _run(connection: Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(text(statement))


def _may_create_roles(connection: Connection) -> bool:
    statement = "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
    return bool(connection.execute(text(statement)).scalar_one())


def _here(connection: Connection) -> tuple[str, str]:
    """Return the schema and the database of the connection, quoted."""
    statement = "SELECT quote_ident(current_schema()), quote_ident(current_database())"
    schema, database = connection.execute(text(statement)).one()
    return schema, database
