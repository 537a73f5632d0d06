"""What the environment says: where state lives, and which database holds the ledger."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.project import project_folder

if TYPE_CHECKING:
    import sqlalchemy


class Settings(BaseSettings):
    """Settings read from `EVERGREEN_*` environment variables."""

    model_config = SettingsConfigDict(env_prefix="EVERGREEN_", extra="ignore")

    home: Path = Field(default_factory=lambda: project_folder() / ".evergreen")
    database_url: str = ""
    pages_url: str = ""

    @property
    def ledger_url(self) -> "sqlalchemy.URL":
        """Where the ledger is: `EVERGREEN_DATABASE_URL`, or SQLite under the home."""
        import sqlalchemy

        if not self.database_url:
            return sqlalchemy.URL.create("sqlite", database=str(self.folder() / "ledger.sqlite"))
        url = sqlalchemy.make_url(self.database_url)
        # Evergreen installs psycopg 3; by default, SQLAlchemy would look for psycopg2.
        return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url

    def folder(self, *parts: str) -> Path:
        """Return a folder below the home; it is created if it does not exist."""
        path = self.home.expanduser().resolve().joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path


def settings() -> Settings:
    """Read the environment; every call reads it again."""
    return Settings()
